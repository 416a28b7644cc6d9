package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/store/envelope"
)

// Retirement says which data keys seal no more, by the time when they were made.
type Retirement struct {
	// Before is the time; zero: there was none yet.
	Before time.Time `bson:"before"`
	// Done: all that was sealed under those keys has been sealed anew.
	Done bool `bson:"done"`
}

var retirementDoc = bson.D{{Key: "_id", Value: "data-keys"}}

// Retirement returns the last one that was recorded.
func (s *Store) Retirement(ctx context.Context) (Retirement, error) {
	var r Retirement
	err := s.meta.FindOne(ctx, retirementDoc).Decode(&r)
	if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
		return r, fmt.Errorf("reading which data keys seal no more: %w", err)
	}
	return r, nil
}

// Retire records a retirement. The time never goes back.
func (s *Store) Retire(ctx context.Context, r Retirement) error {
	_, err := s.meta.UpdateOne(ctx, retirementDoc, bson.D{
		{Key: "$max", Value: bson.D{{Key: "before", Value: Milli(r.Before)}}},
		{Key: "$set", Value: bson.D{{Key: "done", Value: r.Done}}},
	}, options.UpdateOne().SetUpsert(true))
	if err != nil {
		return fmt.Errorf("recording which data keys seal no more: %w", err)
	}
	return nil
}

// SealedUnder returns grants whose token set is sealed under a data key, by id,
// beginning after one.
func (s *Store) SealedUnder(ctx context.Context, key, after string, limit int) (Page, error) {
	cursor, err := s.grants.Find(ctx, bson.D{
		{Key: sealedKey, Value: key},
		{Key: "_id", Value: bson.D{{Key: "$gt", Value: after}}},
	}, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}).SetLimit(int64(limit)))
	return readPage(ctx, cursor, err, "listing the grants of a data key", "_id", limit)
}

// Busy reports whether a grant is in somebody's hands at now: it is being
// refreshed, or its events are on their way.
func (g *Grant) Busy(now time.Time) bool { return g.Lease.Live(now) || g.Outbox != nil }

// Reseal replaces the sealed form of a grant's token set, if nothing has
// changed since g was read, and nobody has taken the grant into his hands. It
// touches nothing else, so that it can't undo what is written without a new
// revision. ErrConflict: come back later.
func (s *Store) Reseal(ctx context.Context, g *Grant, sealed envelope.Blob, now time.Time) error {
	filter := append(revision(g.ID, g.Rev),
		bson.E{Key: sealedKey, Value: g.Sealed.KeyID},
		bson.E{Key: "outbox", Value: nil},
		bson.E{Key: "$or", Value: bson.A{
			bson.D{{Key: "lease", Value: nil}},
			bson.D{{Key: "lease.until", Value: bson.D{{Key: "$lte", Value: Milli(now)}}}},
		}})
	res, err := s.grants.UpdateOne(ctx, filter, bson.D{
		{Key: "$set", Value: bson.D{{Key: "sealed", Value: sealed}}},
		{Key: "$inc", Value: bson.D{{Key: "rev", Value: int64(1)}}},
	})
	if err != nil {
		return fmt.Errorf("resealing grant %s: %w", g.ID, err)
	}
	if res.MatchedCount == 0 {
		return fmt.Errorf("resealing grant %s: %w", g.ID, ErrConflict)
	}
	return nil
}
