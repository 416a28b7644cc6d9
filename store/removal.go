package store

import (
	"context"
	"slices"
	"strconv"
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
	// Of is the id of the grant that the accounts were taken from, where the record is
	// not that grant's own.
	Of string `bson:"of,omitempty"`
}

// RemovalID derives the id of the record of accounts that were taken from a grant, as
// they were given.
func RemovalID(g *Grant, accounts []string) string {
	parts := []string{g.ID}
	for _, id := range slices.Sorted(slices.Values(accounts)) {
		parts = append(parts, id, strconv.FormatInt(g.Given(id).UnixMilli(), 10))
	}
	return hashID("removal", parts...)
}

// Removals returns revoked grants with a removal that was due before a time, longest
// due first.
func (s *Store) Removals(ctx context.Context, before time.Time, after Place, limit int) (Page, error) {
	return s.list(ctx, "listing removals at Mesh", "removal.due", before, after, limit, nil)
}
