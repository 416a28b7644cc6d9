package store

import (
	"context"
	"fmt"
	"iter"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/store/envelope"
)

// PutKey implements envelope.KeyStore.
func (s *Store) PutKey(ctx context.Context, key envelope.WrappedKey) error {
	_, err := s.dataKeys.InsertOne(ctx, key)
	return wrap(err, "storing data key %s", key.ID)
}

// Key implements envelope.KeyStore.
func (s *Store) Key(ctx context.Context, id string) (envelope.WrappedKey, error) {
	return decodeOne[envelope.WrappedKey](s.dataKeys.FindOne(ctx, byID(id)), envelope.ErrUnknownKey, "reading data key %s", id)
}

// SealingKey implements envelope.KeyStore.
func (s *Store) SealingKey(ctx context.Context, scope string, since, now time.Time) (envelope.WrappedKey, error) {
	return decodeOne[envelope.WrappedKey](s.dataKeys.FindOne(ctx, bson.D{
		{Key: "scope", Value: scope},
		{Key: "createdAt", Value: bson.D{{Key: "$gte", Value: Milli(since)}}},
		{Key: "sealsUntil", Value: bson.D{{Key: "$gt", Value: Milli(now)}}},
	}, options.FindOne().SetSort(bson.D{{Key: "createdAt", Value: -1}})), envelope.ErrUnknownKey, "looking for the data key of a scope")
}

// RetireUserKeys stops the data keys of one user from sealing, and returns how many
// there were. Pruning deletes them once nothing refers to them, and then no copy of
// anything sealed under them opens.
func (s *Store) RetireUserKeys(ctx context.Context, user string, now time.Time) (int, error) {
	scope := envelope.ScopeOf(user)
	if scope == "" {
		return 0, nil
	}
	res, err := s.dataKeys.UpdateMany(ctx, bson.D{
		{Key: "scope", Value: scope},
		{Key: "sealsUntil", Value: bson.D{{Key: "$gt", Value: Milli(now)}}},
	}, bson.D{{Key: "$set", Value: bson.D{{Key: "sealsUntil", Value: Milli(now)}}}})
	if err != nil {
		return 0, fmt.Errorf("retiring a user's data keys: %w", err)
	}
	return int(res.ModifiedCount), nil
}

// UserKeys returns the data keys that belong to one user alone, oldest first.
func (s *Store) UserKeys(ctx context.Context, user string) ([]*envelope.WrappedKey, error) {
	scope := envelope.ScopeOf(user)
	if scope == "" {
		return nil, nil
	}
	cursor, err := s.dataKeys.Find(ctx, bson.D{{Key: "scope", Value: scope}}, options.Find().SetSort(bson.D{{Key: "createdAt", Value: 1}}))
	return decodeAll[*envelope.WrappedKey](ctx, cursor, err, "reading a user's data keys")
}

// Keys returns the data keys created before a time (zero: all), oldest first.
func (s *Store) Keys(ctx context.Context, before time.Time) iter.Seq2[envelope.WrappedKey, error] {
	filter := bson.D{}
	if !before.IsZero() {
		filter = bson.D{{Key: "createdAt", Value: bson.D{{Key: "$lt", Value: Milli(before)}}}}
	}
	return func(yield func(envelope.WrappedKey, error) bool) {
		cursor, err := s.dataKeys.Find(ctx, filter, options.Find().SetSort(bson.D{{Key: "createdAt", Value: 1}}))
		if err != nil {
			yield(envelope.WrappedKey{}, fmt.Errorf("listing the data keys: %w", err))
			return
		}
		defer func() { _ = cursor.Close(context.WithoutCancel(ctx)) }()
		for cursor.Next(ctx) {
			var key envelope.WrappedKey
			if err := cursor.Decode(&key); err != nil {
				yield(key, fmt.Errorf("reading a data key: %w", err))
				return
			}
			if !yield(key, nil) {
				return
			}
		}
		if err := cursor.Err(); err != nil {
			yield(envelope.WrappedKey{}, fmt.Errorf("listing the data keys: %w", err))
		}
	}
}

// Rewrap replaces the wrapped form of a data key. ErrConflict: it is no longer the
// one in key, or the key is gone.
func (s *Store) Rewrap(ctx context.Context, key envelope.WrappedKey, wrapped []byte, kek string) error {
	return wrap(matched(s.dataKeys.UpdateOne(ctx,
		bson.D{{Key: "_id", Value: key.ID}, {Key: "wrapped", Value: key.Wrapped}},
		bson.D{{Key: "$set", Value: bson.D{{Key: "wrapped", Value: wrapped}, {Key: "kek", Value: kek}}}},
	)), "storing data key %s rewrapped", key.ID)
}

// DeleteKey deletes a data key. What it sealed never opens again.
func (s *Store) DeleteKey(ctx context.Context, id string) error {
	_, err := s.dataKeys.DeleteOne(ctx, byID(id))
	return wrap(err, "deleting data key %s", id)
}

// SampleKeys returns up to n of the oldest data keys and up to n of the newest.
func (s *Store) SampleKeys(ctx context.Context, n int) ([]*envelope.WrappedKey, error) {
	var all []*envelope.WrappedKey
	seen := map[string]bool{}
	for _, order := range []int{1, -1} {
		cursor, err := s.dataKeys.Find(ctx, bson.D{}, options.Find().SetSort(bson.D{{Key: "createdAt", Value: order}}).SetLimit(int64(n)))
		keys, err := decodeAll[*envelope.WrappedKey](ctx, cursor, err, "listing the data keys")
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			if !seen[key.ID] {
				seen[key.ID] = true
				all = append(all, key)
			}
		}
	}
	return all, nil
}
