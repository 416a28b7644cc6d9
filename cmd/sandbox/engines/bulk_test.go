package engines_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

func byID(id string, more ...bson.E) object { return append(object{{Key: "_id", Value: id}}, more...) }

func updateOf(query object) *mongo.UpdateOneModel {
	return mongo.NewUpdateOneModel().SetFilter(query).SetUpdate(increment)
}

// A bulk of the same kind of write is one command. The answers are MongoDB's: run with LATCHKEY_TEST_MONGODB_URI to see.
func TestBulksAreAnsweredByStatement(t *testing.T) {
	c := grants(t, enginestest.MongoDBWith(t, engines.FerretDBOptions{}))
	unordered := options.BulkWrite().SetOrdered(false)
	refused := updateOf(byID("b", bson.E{Key: "$unknown", Value: 1}))
	updates := []mongo.WriteModel{
		updateOf(byID("a")),
		updateOf(byID("new")).SetUpsert(true),
		refused,
		updateOf(byID("nobody")),
		updateOf(byID("b")),
		updateOf(byID("newer")).SetUpsert(true),
		mongo.NewUpdateManyModel().SetFilter(object{}).SetUpdate(object{{Key: "$set", Value: object{{Key: "x", Value: 1}}}}),
	}
	insertGrant(t, c, "a")
	insertGrant(t, c, "b")

	result, err := c.BulkWrite(t.Context(), updates, unordered)
	var failed mongo.BulkWriteException
	require.ErrorAs(t, err, &failed)
	require.Len(t, failed.WriteErrors, 1)
	require.Equal(t, 2, failed.WriteErrors[0].Index)
	require.NotZero(t, failed.WriteErrors[0].Code)
	require.Contains(t, failed.WriteErrors[0].Message, "$unknown")
	require.EqualValues(t, 2+4, result.MatchedCount, "a and b, and then all four")
	require.EqualValues(t, 2+4, result.ModifiedCount)
	require.Equal(t, map[int64]any{1: "new", 5: "newer"}, result.UpsertedIDs)
	require.Equal(t, 1, version(t, c, "b"), "one that fails leaves none out")

	result, err = c.BulkWrite(t.Context(), []mongo.WriteModel{updateOf(byID("a")), refused, updateOf(byID("b"))})
	require.ErrorAs(t, err, &failed)
	require.Len(t, failed.WriteErrors, 1)
	require.Equal(t, 1, failed.WriteErrors[0].Index)
	require.EqualValues(t, 1, result.MatchedCount)
	require.Equal(t, 1, version(t, c, "b"), "in order, the first that fails is the last")

	deletes := func(ids ...string) (models []mongo.WriteModel) {
		for _, id := range ids {
			models = append(models, mongo.NewDeleteOneModel().SetFilter(byID(id)))
		}
		return append(models,
			mongo.NewDeleteOneModel().SetFilter(object{{Key: "$unknown", Value: 1}}),
			mongo.NewDeleteManyModel().SetFilter(object{{Key: "x", Value: 1}}))
	}
	result, err = c.BulkWrite(t.Context(), deletes("a"))
	require.ErrorAs(t, err, &failed)
	require.Equal(t, 1, failed.WriteErrors[0].Index)
	require.EqualValues(t, 1, result.DeletedCount)
	result, err = c.BulkWrite(t.Context(), deletes("b", "nobody"), unordered)
	require.ErrorAs(t, err, &failed)
	require.Equal(t, 2, failed.WriteErrors[0].Index)
	require.EqualValues(t, 1+2, result.DeletedCount, "b, and then new and newer")
}

func TestBulksFailWithTheServer(t *testing.T) {
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{})
	bulk := []mongo.WriteModel{updateOf(byID("a")), updateOf(byID("b"))}
	unordered := options.BulkWrite().SetOrdered(false)

	var failed mongo.CommandError
	_, err := connect(t, db.URI()).Database("no$database").Collection("grants").BulkWrite(t.Context(), bulk, unordered)
	require.ErrorAs(t, err, &failed, "no failure of a statement")
	require.EqualValues(t, 73, failed.Code)

	pg := enginestest.Postgres(t)
	c := grants(t, enginestest.MongoDBWith(t, engines.FerretDBOptions{PostgresURL: pg.URL()}))
	insertGrant(t, c, "a")
	pg.Stop()
	_, err = c.BulkWrite(t.Context(), bulk, unordered)
	require.ErrorAs(t, err, &failed)
	require.EqualValues(t, 1, failed.Code)
}

func TestFaultsAreOfWholeBulks(t *testing.T) {
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{})
	c := grants(t, db)
	insertGrant(t, c, "a")
	insertGrant(t, c, "b")
	bulk := []mongo.WriteModel{updateOf(byID("a")), updateOf(byID("b"))}
	var asked atomic.Int64
	match := func(command, _ string) bool { return command == "update" && asked.Add(1) > 0 }

	db.Proxy().LoseAnswers(match)
	_, err := c.BulkWrite(t.Context(), bulk)
	require.True(t, mongo.IsNetworkError(err), "%v", err)
	require.EqualValues(t, 1, asked.Load())
	require.Equal(t, 1, version(t, c, "a"))
	require.Equal(t, 1, version(t, c, "b"), "the whole bulk is done though nobody was told")

	db.Proxy().LoseAnswers(nil)
	db.Proxy().FailWrites(13, match)
	_, err = c.BulkWrite(t.Context(), bulk)
	var failed mongo.CommandError
	require.ErrorAs(t, err, &failed)
	require.EqualValues(t, 2, asked.Load())
	require.Equal(t, 1, version(t, c, "a"))
}

// FerretDB has 50 connections to PostgreSQL unless told otherwise, and may need two for a write.
const manyCallers = 128

func TestManyCallersDoNotHangOnPostgres(t *testing.T) {
	if enginestest.RaceDetector {
		t.Skip("FerretDB gives each new connection two seconds, which are too few for so many at once; make scale runs it")
	}
	c := grants(t, enginestest.MongoDBWith(t, engines.FerretDBOptions{PostgresURL: enginestest.Postgres(t).URL()}))
	fill(t, c, 2*manyCallers)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	var bulk []mongo.WriteModel
	for i := range 2 * manyCallers {
		bulk = append(bulk, updateOf(byID(grantID(i), bson.E{Key: "version", Value: 0})))
	}
	result, err := c.BulkWrite(ctx, bulk, options.BulkWrite().SetOrdered(false))
	require.NoError(t, err)
	require.EqualValues(t, len(bulk), result.ModifiedCount)

	// A cursor that is not read to its end keeps a connection.
	for range 30 {
		cursor, err := c.Find(ctx, object{})
		require.NoError(t, err)
		defer cursor.Close(context.WithoutCancel(ctx))
	}
	var callers sync.WaitGroup
	for i := range manyCallers {
		callers.Go(func() {
			for _, write := range []func() error{
				func() error { return setVersion(ctx, c, grantID(i), 1) },
				func() error { _, err := c.UpdateOne(ctx, byID(grantID(i)), increment); return err },
				func() error { return c.FindOne(ctx, byID(grantID(i), bson.E{Key: "version", Value: 3})).Err() },
				func() error { _, err := c.DeleteOne(ctx, byID(grantID(i))); return err },
			} {
				if err := write(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
}

// Writers of every kind count the same documents up from versions that they have read, and each success counts.
func TestWritesOfAllKindsAreAtomicTogether(t *testing.T) {
	stores := map[string]engines.FerretDBOptions{"sqlite": {}}
	if pg := enginestest.IfPostgres(t); pg != nil {
		stores["postgresql"] = engines.FerretDBOptions{PostgresURL: pg.URL()}
	}
	for store, opts := range stores {
		t.Run(store, func(t *testing.T) {
			c := grants(t, enginestest.MongoDBWith(t, opts))
			names := []string{"a", "b", "c"}
			for _, id := range names {
				insertGrant(t, c, id)
			}
			var done, inserted atomic.Int64
			from := func(id string) object { return byID(id, bson.E{Key: "version", Value: version(t, c, id)}) }
			kinds := []func(i int) error{
				func(i int) error { // alone with its document
					result, err := c.UpdateOne(t.Context(), from(names[i%3]), increment)
					if err == nil {
						done.Add(result.ModifiedCount)
					}
					return err
				},
				func(i int) error { // alone with its documents, one after another
					bulk := []mongo.WriteModel{updateOf(from("c")), updateOf(from("a")), updateOf(from("b"))}
					result, err := c.BulkWrite(t.Context(), bulk, options.BulkWrite().SetOrdered(i%2 == 0))
					if err == nil {
						done.Add(result.ModifiedCount)
					}
					return err
				},
				func(i int) error { // alone
					result, err := c.UpdateMany(t.Context(), object{{Key: "version", Value: version(t, c, names[i%3])}}, increment)
					if err == nil {
						done.Add(result.ModifiedCount)
					}
					return err
				},
				func(i int) error { // one of several who make the same document
					_, err := c.InsertOne(t.Context(), byID("insert-"+strconv.Itoa(i/8), bson.E{Key: "version", Value: 0}))
					if err == nil {
						inserted.Add(1)
					} else if mongo.IsDuplicateKeyError(err) {
						return nil
					}
					return err
				},
			}
			var writers sync.WaitGroup
			for w := range 8 {
				writers.Go(func() {
					for i := range 20 {
						if err := kinds[(w+i)%len(kinds)](i); err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
							t.Error(err)
						}
					}
				})
			}
			writers.Wait()

			cursor, err := c.Find(t.Context(), object{})
			require.NoError(t, err)
			var left []struct{ Version int64 }
			require.NoError(t, cursor.All(t.Context(), &left))
			var sum int64
			for _, grant := range left {
				sum += grant.Version
			}
			require.Equal(t, sum, done.Load())
			require.EqualValues(t, len(left)-len(names), inserted.Load())
			require.NotZero(t, inserted.Load())
		})
	}
}
