package store

import (
	"context"
	"time"
)

// Removal is what is left to be done for a revoked grant: its connections are to be
// removed at Mesh, with the access tokens that are sealed in its record. Nothing else
// is kept of the grant, and nothing of it is handed out.
type Removal struct {
	// Since is when the grant was revoked.
	Since time.Time `bson:"since"`
	// Due is when the next try may begin. Whoever begins one moves it ahead first.
	Due time.Time `bson:"due"`
	// Tries counts those that were begun.
	Tries int `bson:"tries,omitempty"`
	// Refused is since when every answer was a refusal.
	Refused *time.Time `bson:"refused,omitempty"`
}

// Removals returns revoked grants with a removal that was due before a time, longest
// due first.
func (s *Store) Removals(ctx context.Context, before time.Time, after Place, limit int) (Page, error) {
	return s.list(ctx, "listing removals at Mesh", "removal.due", before, after, limit, nil)
}
