package engines_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

// queryPlan returns how FerretDB's store means to find a document.
func queryPlan(t testing.TB, c *mongo.Collection, query object) string {
	t.Helper()
	plan, err := c.Database().RunCommand(t.Context(), object{
		{Key: "explain", Value: object{{Key: "find", Value: c.Name()}, {Key: "filter", Value: query}}},
	}).Raw()
	require.NoError(t, err)
	text, err := bson.MarshalExtJSON(plan, false, false)
	require.NoError(t, err)
	return string(text)
}

func TestIndexesServeLookupsByIDOnSQLite(t *testing.T) {
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{})
	c := grants(t, db)
	insertGrant(t, c, "g")
	byID := byID("g")
	require.Contains(t, queryPlan(t, c, byID), "SCAN")

	for range 2 { // a second time there is nothing left to do
		require.NoError(t, db.Embedded().AddIndexes(t.Context()))
		version(t, c, "g") // SQLite sees that its plans are outdated when it runs a query, not when it explains one
		require.Contains(t, queryPlan(t, c, byID), "USING INDEX")
	}
	require.Equal(t, 0, version(t, c, "g"))
	require.NoError(t, setVersion(t.Context(), c, "g", 0))

	other := c.Database().Collection("keys")
	insertGrant(t, other, "g")
	db.Restart()
	require.Equal(t, 0, version(t, other, "g"))
	require.Contains(t, queryPlan(t, other, byID), "USING INDEX", "a start indexes what was made since")
	require.NoError(t, other.Drop(t.Context()), "the index is no obstacle")
}

func TestIndexesServeLookupsOnPostgres(t *testing.T) {
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{PostgresURL: enginestest.Postgres(t).URL()})
	c := grants(t, db)
	fill(t, c, 2_000)
	for _, keys := range []object{
		{{Key: "user", Value: 1}}, {{Key: "state", Value: 1}, {Key: "broker", Value: 1}}, {{Key: "sealed.key", Value: 1}},
	} {
		_, err := c.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: keys})
		require.NoError(t, err)
	}
	_, err := c.Indexes().CreateOne(t.Context(), mongo.IndexModel{
		Keys: object{{Key: "code", Value: 1}}, Options: options.Index().SetUnique(true),
	})
	require.NoError(t, err)
	_, err = c.InsertOne(t.Context(), byID("coded", bson.E{Key: "code", Value: "c"}, bson.E{Key: "user", Value: bson.A{"u", "v"}}))
	require.NoError(t, err)
	byIDAndVersion := byID(grantID(7), bson.E{Key: "version", Value: 0})
	byUser := object{{Key: "user", Value: "v"}}
	require.Contains(t, queryPlan(t, c, byIDAndVersion), "Seq Scan")
	require.Contains(t, queryPlan(t, c, byUser), "Seq Scan")

	for range 2 {
		require.NoError(t, db.Embedded().AddIndexes(t.Context()))
		require.Contains(t, queryPlan(t, c, byIDAndVersion), "Bitmap Index Scan")
		require.Contains(t, queryPlan(t, c, byUser), "Bitmap Index Scan")
	}
	require.NoError(t, c.FindOne(t.Context(), byUser).Err())
	require.NoError(t, setVersion(t.Context(), c, grantID(7), 0))
	require.ErrorIs(t, setVersion(t.Context(), c, grantID(7), 0), mongo.ErrNoDocuments)
	_, err = c.InsertOne(t.Context(), byID("another", bson.E{Key: "code", Value: "c"}))
	require.True(t, mongo.IsDuplicateKeyError(err), "%v", err)

	specs, err := c.Indexes().ListSpecifications(t.Context())
	require.NoError(t, err)
	require.Len(t, specs, 5, "what was made is there still, for all that a client sees")
	require.NoError(t, c.Database().RunCommand(t.Context(), object{{Key: "collStats", Value: c.Name()}}).Err())
	for _, spec := range specs {
		if spec.Name != "_id_" {
			require.NoError(t, c.Indexes().DropOne(t.Context(), spec.Name))
		}
	}
}

func TestIndexesReportADatabaseThatCannotBeReached(t *testing.T) {
	_, err := engines.StartFerretDB(engines.FerretDBOptions{PostgresURL: "postgres://nobody@127.0.0.1:1/none"})
	require.ErrorContains(t, err, "starting FerretDB")
}
