package engines_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

func in(field string, values ...any) object {
	return object{{Key: field, Value: object{{Key: "$in", Value: append(bson.A{}, values...)}}}}
}

// found returns the documents that a find brings, in the order of their text.
func found(t testing.TB, c *mongo.Collection, filter object, opts ...options.Lister[options.FindOptions]) []string {
	t.Helper()
	cursor, err := c.Find(t.Context(), filter, opts...)
	require.NoError(t, err)
	var docs []bson.Raw
	require.NoError(t, cursor.All(t.Context(), &docs))
	texts := make([]string, len(docs))
	for i, doc := range docs {
		texts[i] = doc.String()
	}
	return texts
}

// finds counts the finds that FerretDB has done, by its log.
func finds(log *enginestest.Text) int { return strings.Count(log.String(), "Got first batch") }

func debugLog(log *enginestest.Text) *slog.Logger {
	return slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestFindsByManyValuesAreSplit(t *testing.T) {
	var log enginestest.Text
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{PostgresURL: enginestest.Postgres(t).URL(), Logger: debugLog(&log)})
	c := grants(t, db)
	for _, field := range []string{"user", "sealed.key"} {
		_, err := c.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: object{{Key: field, Value: 1}}})
		require.NoError(t, err)
	}
	user := func(id, user any) object {
		return object{{Key: "_id", Value: id}, {Key: "user", Value: user}, {Key: "state", Value: "free"}, {Key: "sealed", Value: object{{Key: "key", Value: "k"}}}}
	}
	docs := []any{
		user("a", "u1"), user("b", "u1"), user(3, "u2"), user("3", "u2"), user("both", bson.A{"u1", "u2"}), user("number", 1), user("none", nil),
	}
	_, err := c.InsertMany(t.Context(), docs)
	require.NoError(t, err)
	require.Len(t, found(t, c, in("_id", "a", "b", "both")), 3, "nothing is known of its indexes yet")
	require.NoError(t, db.Embedded().AddIndexes(t.Context()))

	users := in("user", "u1", "u2", "u1", "nobody")
	for name, test := range map[string]struct {
		filter object
		opts   *options.FindOptionsBuilder
		finds  int
	}{
		"ids":                   {in("_id", "a", "3", "nobody"), nil, 3},
		"a field":               {users, nil, 3},
		"nobody":                {in("user", "nobody"), nil, 1},
		"a projection":          {users, options.Find().SetProjection(object{{Key: "state", Value: 1}, {Key: "_id", Value: true}}), 3},
		"no values":             {in("user"), nil, 0},
		"no ids":                {users, options.Find().SetProjection(object{{Key: "_id", Value: 0}}), 3},
		"other values":          {in("user", "u1", 1), nil, 1},
		"no index":              {in("state", "free", "held"), nil, 1},
		"a field below another": {in("sealed.key", "k", "l"), nil, 1},
		"sorted":                {users, options.Find().SetSort(object{{Key: "_id", Value: 1}}), 1},
		"a limit":               {users, options.Find().SetLimit(9), 1},
		"a batch size":          {users, options.Find().SetBatchSize(100), 1},
		"a second condition":    {append(users, bson.E{Key: "state", Value: "free"}), nil, 1},
		"another operator":      {object{{Key: "user", Value: object{{Key: "$eq", Value: "u1"}}}}, nil, 1},
		"two operators":         {object{{Key: "user", Value: object{{Key: "$in", Value: bson.A{"u1"}}, {Key: "$ne", Value: "u2"}}}}, nil, 1},
		"a computed projection": {users, options.Find().SetProjection(object{{Key: "u", Value: "$user"}}), 1},
	} {
		t.Run(name, func(t *testing.T) {
			if test.opts == nil {
				test.opts = options.Find()
			}
			before := finds(&log)
			split := found(t, c, test.filter, test.opts)
			require.Equal(t, test.finds, finds(&log)-before)
			require.ElementsMatch(t, found(t, c, object{{Key: "$and", Value: bson.A{test.filter}}}, test.opts), split)
		})
	}
	var failed mongo.CommandError
	_, err = c.Find(t.Context(), object{{Key: "user", Value: object{{Key: "$in", Value: "u1"}}}})
	require.ErrorAs(t, err, &failed, "FerretDB refuses what is no list")
	_, err = c.Find(t.Context(), users, options.Find().SetProjection(object{{Key: "a", Value: 1}, {Key: "b", Value: 0}}))
	require.ErrorAs(t, err, &failed, "a part that is refused has the find refused")
}

func TestFindsByManyValuesWithMuchToFindAreNotSplit(t *testing.T) {
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{PostgresURL: enginestest.Postgres(t).URL()})
	c := grants(t, db)
	_, err := c.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: object{{Key: "user", Value: 1}}})
	require.NoError(t, err)
	require.NoError(t, db.Embedded().AddIndexes(t.Context()))
	var docs []any
	add := func(user string, n, size int) {
		for range n {
			docs = append(docs, object{{Key: "user", Value: user}, {Key: "blob", Value: strings.Repeat("x", size)}})
		}
	}
	add("a, with some", 102, 1)
	add("b, with many", 1_002, 1)
	add("c, with large", 102, 42<<10)
	_, err = c.InsertMany(t.Context(), docs)
	require.NoError(t, err)

	for user, n := range map[string]int{"a, with some": 102, "b, with many": 1_002, "c, with large": 102} {
		require.Len(t, found(t, c, in("user", user, "d")), n)
		var answer struct {
			Cursor struct{ ID int64 }
		}
		err := c.Database().RunCommand(t.Context(), object{{Key: "find", Value: "grants"}, {Key: "filter", Value: in("user", user, "d")}}).Decode(&answer)
		require.NoError(t, err)
		require.Equal(t, user == "a, with some", answer.Cursor.ID == 0, "%s: all at once, or at first FerretDB's 101", user)
	}
}

func TestFindsByManyIDsAreSplitOnSQLite(t *testing.T) {
	var log enginestest.Text
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{Logger: debugLog(&log)})
	c := grants(t, db)
	insertGrant(t, c, "a")
	insertGrant(t, c, "b")
	require.NoError(t, db.Embedded().AddIndexes(t.Context()))

	before := finds(&log)
	require.Len(t, found(t, c, in("_id", "a", "b", "c")), 2)
	require.Equal(t, 3, finds(&log)-before)
	require.Empty(t, found(t, c, in("user", "a", "b", "c")))
	require.Equal(t, 4, finds(&log)-before, "FerretDB does not find by other fields on SQLite")
}

func TestFindsByManyValuesAnswerTheSameAsTheCollectionGrows(t *testing.T) {
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{PostgresURL: enginestest.Postgres(t).URL()})
	c := grants(t, db)
	fill(t, c, 1)
	require.NoError(t, db.Embedded().AddIndexes(t.Context()))
	var ids []any
	for i := range 50 {
		ids = append(ids, grantID(i*3))
	}
	require.Len(t, found(t, c, in("_id", ids...)), 1)
	_, err := c.DeleteOne(t.Context(), byID(grantID(0)))
	require.NoError(t, err)
	require.Empty(t, found(t, c, in("_id", ids...)))
	for range 2 {
		fill(t, c, 150)
		require.Len(t, found(t, c, in("_id", ids...)), 50)
		require.Len(t, found(t, c, in("_id", ids...)), 50)
		_, err = c.DeleteMany(t.Context(), object{})
		require.NoError(t, err)
		require.Empty(t, found(t, c, in("_id", ids...)))
	}
}
