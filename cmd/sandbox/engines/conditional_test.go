package engines_test

import (
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

var increment = object{{Key: "$inc", Value: object{{Key: "version", Value: 1}}}}

// writes are what a client may do to a document, each telling all that it learns from the answer.
var writes = map[string]func(t *rapid.T, c *mongo.Collection, query object) any{
	"findOneAndUpdate": func(t *rapid.T, c *mongo.Collection, query object) any {
		return outcome(c.FindOneAndUpdate(t.Context(), query, increment).Raw())
	},
	"findOneAndUpdate, after": func(t *rapid.T, c *mongo.Collection, query object) any {
		return outcome(c.FindOneAndUpdate(t.Context(), query, increment,
			options.FindOneAndUpdate().SetReturnDocument(options.After).SetSort(object{{Key: "version", Value: 1}})).Raw())
	},
	"findOneAndUpdate, upsert": func(t *rapid.T, c *mongo.Collection, query object) any {
		return outcome(c.FindOneAndUpdate(t.Context(), query, increment, options.FindOneAndUpdate().SetUpsert(true)).Raw())
	},
	"findOneAndReplace": func(t *rapid.T, c *mongo.Collection, query object) any {
		return outcome(c.FindOneAndReplace(t.Context(), query, object{{Key: "state", Value: "new"}}).Raw())
	},
	"findOneAndDelete": func(t *rapid.T, c *mongo.Collection, query object) any {
		return outcome(c.FindOneAndDelete(t.Context(), query).Raw())
	},
	"updateOne": func(t *rapid.T, c *mongo.Collection, query object) any {
		return outcome(c.UpdateOne(t.Context(), query, increment))
	},
	"updateOne, upsert": func(t *rapid.T, c *mongo.Collection, query object) any {
		return outcome(c.UpdateOne(t.Context(), query, increment, options.UpdateOne().SetUpsert(true)))
	},
	"updateMany": func(t *rapid.T, c *mongo.Collection, query object) any {
		return outcome(c.UpdateMany(t.Context(), query, increment))
	},
	"replaceOne": func(t *rapid.T, c *mongo.Collection, query object) any {
		return outcome(c.ReplaceOne(t.Context(), query, object{{Key: "state", Value: "new"}}))
	},
	"deleteOne": func(t *rapid.T, c *mongo.Collection, query object) any {
		return outcome(c.DeleteOne(t.Context(), query))
	},
	"refused update": func(t *rapid.T, c *mongo.Collection, query object) any {
		return outcome(c.UpdateOne(t.Context(), query, object{{Key: "$inc", Value: object{{Key: "state", Value: 1}}}}))
	},
}

func outcome(answer any, err error) any {
	if err != nil {
		return err.Error()
	}
	return answer
}

var conditions = []object{
	{},
	{{Key: "version", Value: 1}},
	{{Key: "version", Value: object{{Key: "$gt", Value: 0}}}},
	{{Key: "version", Value: object{{Key: "$ne", Value: 1}}}, {Key: "state", Value: "held"}},
	{{Key: "owner", Value: object{{Key: "$exists", Value: false}}}},
	{{Key: "lease.owner", Value: nil}},
	{{Key: "$or", Value: bson.A{object{{Key: "version", Value: 0}}, object{{Key: "state", Value: "free"}}}}},
	{{Key: "$nor", Value: bson.A{object{{Key: "version", Value: 0}}}}},
	{{Key: "state", Value: object{{Key: "$in", Value: bson.A{"free", "held"}}}}},
	{{Key: "state", Value: object{{Key: "$regex", Value: "^h"}}}},
}

// malformed conditions are refused when FerretDB has a document to hold against them, not before.
var malformed = []object{
	{{Key: "$unknown", Value: 1}},
	{{Key: "version", Value: object{{Key: "$unknown", Value: 1}}}},
}

// ids are queries for the document itself and for others, with and without the kind of id that can be split off.
func ids(id string) []any {
	return []any{id, "nobody", 1, object{{Key: "$eq", Value: id}}}
}

func TestConditionalWritesAreAnsweredAsByFerretDBAlone(t *testing.T) {
	name := enginestest.Name(t)
	var collections []*mongo.Collection
	for _, uri := range []string{enginestest.MongoDBWith(t, engines.FerretDBOptions{}).URI(), ferretDBAlone(t)} {
		collections = append(collections, connect(t, uri).Database(name).Collection("grants"))
	}
	checks := 0
	rapid.Check(t, func(t *rapid.T) {
		checks++
		id := "grant-" + strconv.Itoa(checks)
		doc := object{
			{Key: "_id", Value: id},
			{Key: "version", Value: rapid.IntRange(0, 2).Draw(t, "version")},
			{Key: "state", Value: rapid.SampledFrom([]string{"free", "held"}).Draw(t, "state")},
		}
		query := object{{Key: "_id", Value: id}}
		if rapid.IntRange(0, 9).Draw(t, "malformed") == 0 {
			query = append(query, rapid.SampledFrom(malformed).Draw(t, "conditions")...)
		} else {
			query[0].Value = rapid.SampledFrom(ids(id)).Draw(t, "id")
			query = append(query, rapid.SampledFrom(conditions).Draw(t, "conditions")...)
		}
		query = rapid.Permutation(query).Draw(t, "query")
		write := rapid.SampledFrom(slices.Sorted(maps.Keys(writes))).Draw(t, "write")

		var answers, left [2]any // of either, and what is left of the document
		for i, c := range collections {
			_, err := c.InsertOne(t.Context(), doc)
			require.NoError(t, err)
			answers[i] = writes[write](t, c, query)
			left[i] = outcome(c.FindOne(t.Context(), object{{Key: "_id", Value: id}}).Raw())
			_, err = c.DeleteMany(t.Context(), object{})
			require.NoError(t, err)
		}
		require.Equal(t, answers[1], answers[0])
		require.Equal(t, left[1], left[0])
	})
}

func TestConditionalWritesAreSplitOnSQLite(t *testing.T) {
	var log enginestest.Text
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	c := grants(t, db)
	insertGrant(t, c, "g")
	require.NotContains(t, log.String(), "aggregate")
	require.NoError(t, setVersion(t.Context(), c, "g", 0))
	require.Contains(t, log.String(), "aggregate", "FerretDB was asked first whether the conditions are met")
}

func TestConditionalWritesInOneBulkSeeEachOther(t *testing.T) {
	c := grants(t, enginestest.MongoDBWith(t, engines.FerretDBOptions{}))
	insertGrant(t, c, "g")
	var steps []mongo.WriteModel
	for _, from := range []int{0, 0, 1, 5} {
		query := object{{Key: "_id", Value: "g"}, {Key: "version", Value: from}}
		steps = append(steps, mongo.NewUpdateOneModel().SetFilter(query).SetUpdate(increment))
	}
	result, err := c.BulkWrite(t.Context(), steps)
	require.NoError(t, err)
	require.EqualValues(t, 2, result.ModifiedCount, "from 0 to 1 and from 1 to 2")
	require.Equal(t, 2, version(t, c, "g"))
}
