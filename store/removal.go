package store

import (
	"context"
	"time"
)

// Removal is what remains to be done for a revoked grant: removing its connections at
// Mesh with the access tokens sealed in its record. Nothing else of the grant is kept,
// and no token of it is handed out.
type Removal struct {
	// Since is when the grant was revoked.
	Since time.Time `bson:"since"`
	// Due is when the next attempt may begin. Each attempt first moves it ahead.
	Due time.Time `bson:"due"`
	// Attempts counts the attempts that have begun.
	Attempts int `bson:"tries,omitempty"`
	// Refused is since when every answer has been a refusal.
	Refused *time.Time `bson:"refused,omitempty"`
}

// Removals returns the revoked grants with a removal due before a time, longest due
// first.
func (s *Store) Removals(ctx context.Context, before time.Time, after Place, limit int) (Page, error) {
	return s.list(ctx, "listing removals at Mesh", "removal.due", before, after, limit, nil)
}
