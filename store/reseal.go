package store

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/store/envelope"
)

// Retirement says which data keys no longer seal.
type Retirement struct {
	// Before: data keys made before this time. Zero: none.
	Before time.Time `bson:"before"`
	// Done: everything sealed under those keys has been sealed anew.
	Done bool `bson:"done"`
}

var retirementDoc = byID("data-keys")

// Retirement returns the last retirement.
func (s *Store) Retirement(ctx context.Context) (Retirement, error) {
	return decodeOne[Retirement](s.meta.FindOne(ctx, retirementDoc), nil, "reading which data keys no longer seal")
}

// Retire records a retirement. The time never goes back.
func (s *Store) Retire(ctx context.Context, r Retirement) error {
	_, err := s.meta.UpdateOne(ctx, retirementDoc, bson.D{
		{Key: "$max", Value: bson.D{{Key: "before", Value: Milli(r.Before)}}},
		{Key: "$set", Value: bson.D{{Key: "done", Value: r.Done}}},
	}, options.UpdateOne().SetUpsert(true))
	return wrap(err, "recording which data keys no longer seal")
}

// SealedUnder returns the grants whose token set is sealed under a data key, in the
// order of their ids, beginning after one.
func (s *Store) SealedUnder(ctx context.Context, key, after string, limit int) (Page, error) {
	return s.listByID(ctx, "listing the grants of a data key", after, limit, bson.D{{Key: sealedKey, Value: key}})
}

// Busy reports whether a worker refreshes the grant at now, or sends its events.
func (g *Grant) Busy(now time.Time) bool { return g.Lease.Valid(now) || g.Outbox != nil }

// Reseal replaces the sealed form of a grant's token set, and nothing else, so that it
// can't undo what is written without a new revision. ErrConflict: the grant has changed
// since g was read, or is busy; try again later.
func (s *Store) Reseal(ctx context.Context, g *Grant, sealed envelope.Blob, now time.Time) error {
	filter := append(revision(g.ID, g.Rev),
		bson.E{Key: sealedKey, Value: g.Sealed.KeyID},
		bson.E{Key: "outbox", Value: nil},
		bson.E{Key: "$or", Value: notLeased(now)})
	return wrap(matched(s.grants.UpdateOne(ctx, filter, bson.D{
		{Key: "$set", Value: bson.D{{Key: "sealed", Value: sealed}}},
		{Key: "$inc", Value: bson.D{{Key: "rev", Value: int64(1)}}},
	})), "resealing grant %s", g.ID)
}
