package engines_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

// What a worker sends has the same results in memory as in FerretDB.
func TestMemoryAnswersAsFerretDBDoes(t *testing.T) {
	memory, err := engines.StartMemory()
	require.NoError(t, err)
	t.Cleanup(memory.Stop)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	d := func(pairs ...any) bson.D {
		doc := bson.D{}
		for i := 0; i < len(pairs); i += 2 {
			doc = append(doc, bson.E{Key: pairs[i].(string), Value: pairs[i+1]})
		}
		return doc
	}
	byID, before := d("_id", "a"), options.FindOneAndUpdate().SetReturnDocument(options.Before)
	type step func(ctx context.Context, c *mongo.Collection) (any, error)
	find := func(filter bson.D, opts ...options.Lister[options.FindOptions]) step {
		return func(ctx context.Context, c *mongo.Collection) (any, error) {
			cursor, err := c.Find(ctx, filter, append(opts, options.Find().SetSort(d("due.at", 1, "_id", -1)))...)
			var all []bson.D
			if err == nil {
				err = cursor.All(ctx, &all)
			}
			return all, err
		}
	}
	update := func(filter, update bson.D, opts ...options.Lister[options.UpdateOneOptions]) step {
		return func(ctx context.Context, c *mongo.Collection) (any, error) {
			result, err := c.UpdateOne(ctx, filter, update, opts...)
			if err != nil {
				return nil, err
			}
			return fmt.Sprint(result.MatchedCount, result.UpsertedCount, result.UpsertedID), nil
		}
	}
	modify := func(filter, update bson.D) step {
		return func(ctx context.Context, c *mongo.Collection) (any, error) {
			var doc bson.D
			err := c.FindOneAndUpdate(ctx, filter, update, before).Decode(&doc)
			return doc, err
		}
	}
	notLeased := d("_id", "a", "state", d("$in", bson.A{"active", "x"}), "$or", bson.A{d("lease", nil), d("lease.until", d("$lte", at))})
	upsert := options.UpdateOne().SetUpsert(true)
	steps := []step{
		func(ctx context.Context, c *mongo.Collection) (any, error) {
			_, err := c.InsertMany(ctx, []any{
				d("_id", "a", "user", "u", "state", "active", "rev", int64(1), "due", d("at", at, "n", int32(1)), "marks", bson.A{"p", "q"}),
				d("_id", "b", "user", "u", "state", "gone", "rev", int64(1), "due", d("at", at.Add(time.Hour))),
				d("_id", "c", "user", "v", "state", "active", "rev", int32(7), "blob", []byte{1, 2}),
				d("_id", "a", "user", "w"),
			}, options.InsertMany().SetOrdered(false))
			return mongo.IsDuplicateKeyError(err), nil
		},
		find(d()), find(byID), find(d("user", "u")), find(d("user", d("$in", bson.A{"u", "v", "none"}))), find(d("marks", "q")),
		find(d("user", "v", "state", "gone")), find(d("due.at", d("$lt", at.Add(time.Minute)))), find(d("due.at", nil)), find(d("state", d("$ne", "active"))),
		find(d("due.at", d("$gte", at)), options.Find().SetLimit(1)), find(d(), options.Find().SetSkip(1)), find(d("user", d("$regex", "^u"))),
		find(d("state", d("$nin", bson.A{"gone"}), "_id", d("$gt", "a"))), find(d("rev", 7)), find(d("due.at", d("$gt", at), "user", "u")),
		modify(notLeased, d("$set", d("lease", d("owner", "o", "until", at.Add(time.Second))), "$inc", d("rev", int64(1), "due.n", int32(2)))),
		modify(notLeased, d("$set", d("lease", nil))), find(byID),
		update(byID, d("$unset", d("lease", "", "marks", ""), "$set", d("due.stream", "s"), "$min", d("due.at", at.Add(-time.Hour)), "$max", d("seen", at))), find(byID),
		find(d("marks", "q")),
		update(byID, d("$min", d("due.at", at), "$max", d("seen", at.Add(-time.Hour)))), find(byID),
		update(d("_id", "new"), d("$setOnInsert", d("x", int64(1)), "$set", d("y.z", "deep")), upsert),
		update(d("_id", "new"), d("$setOnInsert", d("x", int64(2)), "$set", d("y.z", "other")), upsert), find(d("_id", "new")),
		update(d("_id", "none"), d("$set", d("x", 1))),
		func(ctx context.Context, c *mongo.Collection) (any, error) {
			result, err := c.ReplaceOne(ctx, d("_id", "a", "rev", int64(2)), d("_id", "a", "user", "moved", "rev", int64(3)))
			return result.MatchedCount, err
		},
		func(ctx context.Context, c *mongo.Collection) (any, error) {
			result, err := c.ReplaceOne(ctx, d("_id", "a", "rev", int64(2)), d("user", "late"))
			return result.MatchedCount, err
		},
		find(d("user", "moved")), find(d("user", "u")),
		func(ctx context.Context, c *mongo.Collection) (any, error) {
			result, err := c.BulkWrite(ctx, []mongo.WriteModel{
				mongo.NewReplaceOneModel().SetFilter(d("_id", "e")).SetReplacement(d("_id", "e", "user", "bulk")).SetUpsert(true),
				mongo.NewUpdateOneModel().SetFilter(d("_id", "b")).SetUpdate(d("$set", d("user", "bulk"))),
			}, options.BulkWrite().SetOrdered(false))
			return fmt.Sprint(result.MatchedCount, result.UpsertedCount, result.UpsertedIDs), err
		},
		find(d("user", "bulk")),
		func(ctx context.Context, c *mongo.Collection) (any, error) {
			one, err := c.DeleteOne(ctx, d("_id", "e", "user", "bulk"))
			if err != nil {
				return nil, err
			}
			many, err := c.DeleteMany(ctx, d("due.at", nil))
			return []int64{one.DeletedCount, many.DeletedCount}, err
		},
		func(ctx context.Context, c *mongo.Collection) (any, error) {
			specs, err := c.Indexes().ListSpecifications(ctx)
			var keys []string
			for _, s := range specs {
				keys = append(keys, s.KeysDocument.String())
			}
			slices.Sort(keys)
			return keys, err
		},
	}
	results := map[string][]string{}
	for name, uri := range map[string]string{"memory": memory.URI(), "FerretDB": enginestest.MongoDB(t).URI()} {
		client, err := mongo.Connect(options.Client().ApplyURI(uri))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, client.Disconnect(context.WithoutCancel(t.Context()))) })
		c := client.Database(strings.ToLower(name) + "_steps").Collection("grants")
		for _, keys := range []bson.D{d("user", 1), d("due.at", 1, "_id", 1), d("marks", 1)} {
			_, err := c.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: keys})
			require.NoError(t, err)
		}
		for _, step := range steps {
			result, err := step(t.Context(), c)
			if err != nil {
				require.ErrorIs(t, err, mongo.ErrNoDocuments)
			}
			results[name] = append(results[name], fmt.Sprintf("%v %v", result, err))
		}
	}
	require.Equal(t, results["FerretDB"], results["memory"])
	require.Greater(t, len(slices.Compact(slices.Clone(results["memory"]))), len(steps)/2, "most results differ")

	client, err := mongo.Connect(options.Client().ApplyURI(memory.URI()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Disconnect(context.WithoutCancel(t.Context()))) })
	c := client.Database("memory_steps").Collection("grants")
	_, err = c.CountDocuments(t.Context(), bson.D{})
	require.ErrorContains(t, err, "no such command", "what it can't do it refuses")
	_, err = c.InsertOne(t.Context(), d("_id", "f"))
	require.NoError(t, err)
	require.ErrorContains(t, c.FindOne(t.Context(), d("x", d("$where", 1))).Err(), "unknown operator")
}

// A command that comes while the database stops fails, and nothing else does.
func TestMemoryStopsUnderCommands(t *testing.T) {
	for range 10 {
		memory, err := engines.StartMemory()
		require.NoError(t, err)
		client, err := mongo.Connect(options.Client().ApplyURI(memory.URI()).SetRetryReads(false))
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		begun := make(chan struct{}, 16)
		for i := range cap(begun) {
			callers.Go(func() {
				for n := 0; ; n++ {
					if err := client.Database("db").Collection(fmt.Sprint(i)).FindOne(ctx, bson.D{}).Err(); !errors.Is(err, mongo.ErrNoDocuments) {
						return
					}
					if n == 0 {
						begun <- struct{}{}
					}
				}
			})
		}
		for range cap(begun) {
			<-begun
		}
		memory.Stop()
		cancel()
		callers.Wait()
		require.NoError(t, client.Disconnect(t.Context()))
	}
}
