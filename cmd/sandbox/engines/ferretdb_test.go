package engines_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/FerretDB/FerretDB/ferretdb"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

type object = bson.D

func connect(t testing.TB, uri string) *mongo.Client {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(uri).
		SetWriteConcern(writeconcern.Majority()).
		SetReadConcern(readconcern.Majority()).
		SetServerSelectionTimeout(20 * time.Second))
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	return client
}

func grants(t testing.TB, db *enginestest.Database) *mongo.Collection {
	t.Helper()
	return connect(t, db.URI()).Database(enginestest.Name(t)).Collection("grants")
}

// setVersion is a conditional update of the kind that decides who wins.
func setVersion(ctx context.Context, c *mongo.Collection, id string, from int) error {
	return c.FindOneAndUpdate(ctx,
		object{{Key: "_id", Value: id}, {Key: "version", Value: from}},
		object{{Key: "$inc", Value: object{{Key: "version", Value: 1}}}},
	).Err()
}

func insertGrant(t testing.TB, c *mongo.Collection, id string) {
	t.Helper()
	_, err := c.InsertOne(t.Context(), object{{Key: "_id", Value: id}, {Key: "version", Value: 0}})
	require.NoError(t, err)
}

func version(t testing.TB, c *mongo.Collection, id string) int {
	t.Helper()
	var doc struct{ Version int }
	require.NoError(t, c.FindOne(t.Context(), object{{Key: "_id", Value: id}}).Decode(&doc))
	return doc.Version
}

// contend has many workers on several clients try, round after round, to be the one that brings a document from one
// version to the next. It tells stop how many succeeded, and ends when stop has seen enough.
func contend(t testing.TB, uri string, rounds int, stop func(won int) bool) {
	t.Helper()
	const workers, clients = 8, 4
	name := enginestest.Name(t)
	var pool []*mongo.Collection
	for range clients {
		pool = append(pool, connect(t, uri).Database(name).Collection("grants"))
	}
	insertGrant(t, pool[0], "g")
	for range rounds {
		from := version(t, pool[0], "g")
		var won atomic.Int64
		start := make(chan struct{})
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				<-start
				switch err := setVersion(t.Context(), pool[w%clients], "g", from); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, mongo.ErrNoDocuments):
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		require.Equal(t, from+1, version(t, pool[0], "g"))
		if stop(int(won.Load())) {
			return
		}
	}
}

func TestFerretDBUpdatesADocumentAtomically(t *testing.T) {
	contend(t, enginestest.MongoDBWith(t, engines.FerretDBOptions{}).URI(), 25, func(won int) bool {
		require.Equal(t, 1, won, "one worker of each round wins")
		return false
	})
}

// ferretDBAlone starts FerretDB without the proxy and returns its address.
func ferretDBAlone(t testing.TB) string {
	t.Helper()
	alone, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{TCP: "127.0.0.1:0"},
		Logger:    slog.New(slog.DiscardHandler),
		Handler:   "sqlite",
		SQLiteURL: "file:" + t.TempDir() + "/",
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = alone.Run(ctx) // returns nil always
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return alone.MongoDBURI()
}

// What the proxy is for: without it several workers win within the first rounds.
func TestFerretDBAloneDoesNotUpdateAtomically(t *testing.T) {
	twoWon := false
	contend(t, ferretDBAlone(t), 500, func(won int) bool {
		twoWon = won > 1
		return twoWon
	})
	require.True(t, twoWon)
}

func TestFerretDBKeepsItsDataAndAddressAcrossARestart(t *testing.T) {
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{})
	c := grants(t, db)
	insertGrant(t, c, "g")

	before := db.URI()
	db.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.Error(t, c.FindOne(ctx, object{}).Err())

	db.Restart()
	require.Equal(t, before, db.URI())
	require.Equal(t, 0, version(t, c, "g"))
}

func TestFerretDBRestartsWhileRunning(t *testing.T) {
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{})
	c := grants(t, db)
	insertGrant(t, c, "g")
	db.Restart()
	require.Equal(t, 0, version(t, c, "g"))
}

func TestFerretDBNeedsAPlaceForItsData(t *testing.T) {
	_, err := engines.StartFerretDB(engines.FerretDBOptions{})
	require.ErrorContains(t, err, "neither a directory nor a PostgreSQL URL")
}

func TestFerretDBReportsATakenPort(t *testing.T) {
	taken := enginestest.MongoDBWith(t, engines.FerretDBOptions{}).Embedded()
	_, err := engines.StartFerretDB(engines.FerretDBOptions{Dir: t.TempDir(), Port: taken.Port()})
	require.ErrorContains(t, err, "address already in use")
}
