package engines_test

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

// disconnects reports whether the server ends a new connection at once, where one that serves would wait for a command.
func disconnects(t testing.TB, address string) bool {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return true
	}
	defer conn.Close()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Second)))
	_, err = conn.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

func TestProxyCutAndRestored(t *testing.T) {
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{})
	c := grants(t, db)
	insertGrant(t, c, "g")
	require.False(t, disconnects(t, db.Proxy().Addr()))

	db.Proxy().Cut()
	require.True(t, disconnects(t, db.Proxy().Addr()))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	require.Error(t, setVersion(ctx, c, "g", 0))

	db.Restart()
	require.True(t, disconnects(t, db.Proxy().Addr()), "a restart does not restore what was cut")

	db.Proxy().Restore()
	require.NoError(t, setVersion(t.Context(), c, "g", 0))
}

func TestProxyFailsTheWritesAskedFor(t *testing.T) {
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{})
	c := grants(t, db)
	insertGrant(t, c, "g")
	other := c.Database().Collection("keys")

	db.Proxy().FailWrites(13, func(command, collection string) bool {
		return command == "findAndModify" && collection == "grants"
	})
	var failed mongo.CommandError
	require.ErrorAs(t, setVersion(t.Context(), c, "g", 0), &failed)
	require.EqualValues(t, 13, failed.Code)
	require.Equal(t, 0, version(t, c, "g"), "a failed write is not done, and reads go on")
	insertGrant(t, c, "another command")
	insertGrant(t, other, "g")
	require.NoError(t, setVersion(t.Context(), other, "g", 0), "another collection")

	db.Proxy().FailWrites(0, nil)
	require.NoError(t, setVersion(t.Context(), c, "g", 0))
}

func TestProxyLosesTheAnswersAskedFor(t *testing.T) {
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{})
	c := grants(t, db)
	insertGrant(t, c, "g")

	db.Proxy().LoseAnswers(func(command, _ string) bool { return command == "findAndModify" })
	err := setVersion(t.Context(), c, "g", 0)
	require.True(t, mongo.IsNetworkError(err), "%v", err)
	require.Equal(t, 1, version(t, c, "g"), "the write is done though nobody was told")

	db.Proxy().LoseAnswers(nil)
	require.NoError(t, setVersion(t.Context(), c, "g", 1))
}

func TestProxyDelaysCommands(t *testing.T) {
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{})
	c := grants(t, db)
	insertGrant(t, c, "g")

	db.Proxy().Delay(time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, setVersion(ctx, c, "g", 0), context.DeadlineExceeded)

	db.Proxy().Delay(0)
	require.Equal(t, 0, version(t, c, "g"))
	db.Stop() // in spite of what is still held back
}

func TestProxyKeepsStepWithUnacknowledgedWrites(t *testing.T) {
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{})
	// One connection, so that an answer out of turn would reach the next command.
	client, err := mongo.Connect(options.Client().ApplyURI(db.URI()).SetMaxPoolSize(1))
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	name := enginestest.Name(t)
	unacknowledged := client.Database(name).Collection("grants", options.Collection().SetWriteConcern(writeconcern.Unacknowledged()))
	acknowledged := client.Database(name).Collection("grants")

	for _, id := range []string{"a", "b", "c"} {
		_, err := unacknowledged.InsertOne(t.Context(), object{{Key: "_id", Value: id}})
		require.NoError(t, err)
	}
	n, err := acknowledged.CountDocuments(t.Context(), object{})
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
}
