package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/mongo"
	mongooptions "go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

func TestEnsureMayRunAgainAndAtOnce(t *testing.T) {
	db := enginestest.MongoDB(t)
	o := options(t, db)
	var all sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		s := connect(t, o)
		all.Go(func() { errs[i] = s.Ensure(t.Context()) })
	}
	all.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	require.NoError(t, connect(t, o).Ensure(t.Context()))

	client, err := mongo.Connect(mongooptions.Client().ApplyURI(db.URI()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	for collection, want := range map[string][]string{
		"grants":      {"_id_", "user_1", "due.at_1__id_1", "due.stream_1_due.at_1__id_1", "outbox.since_1__id_1", "purgeAt_1__id_1", "accountsDue_1__id_1", "removal.due_1__id_1", "state_1_warned_1_access.expiresAt_1__id_1", "sealed.key_1__id_1", "state_1_broker_1__id_1", "failing.at_1__id_1", "fingerprints_1", "chain.key_1__id_1"},
		"revocations": {"_id_", "purgeAt_1"},
		"data_keys":   {"_id_", "createdAt_1", "scope_1_createdAt_1"},
	} {
		specs, err := client.Database(o.Database).Collection(collection).Indexes().ListSpecifications(t.Context())
		require.NoError(t, err)
		var names []string
		for _, spec := range specs {
			names = append(names, spec.Name)
		}
		require.ElementsMatch(t, want, names, collection)
	}
}

func TestOpenPings(t *testing.T) {
	s := open(t)
	require.NoError(t, s.Ping(t.Context()))
}

func TestOpenErrorsHoldNoPassword(t *testing.T) {
	const password = "pa55-canary"
	for _, uri := range []string{
		"", password, "mongodb://", "http://user:" + password + "@host",
		"mongodb://user:" + password, "mongodb://user:" + password + "@", "mongodb://user:" + password + "@host:port",
		"mongodb://user:" + password + "%zz@host/", "mongodb://user:" + password + "/x@host/", "mongodb://user:" + password + "@@host/",
		"mongodb://user:" + password + "@host/?w=" + password + "&tls=" + password, "mongodb://user:" + password + "@host/?authMechanism=" + password,
		"mongodb://user:" + password + "@host/?tls=true&tlsCAFile=/" + password, "mongodb://user:" + password + "@host/?maxPoolSize=" + password,
		"mongodb+srv://user:" + password + "@host.example.invalid:27017/", "mongodb+srv://user:" + password + "@a,b/",
		"mongodb://user:" + password + "@127.0.0.1:1/?directConnection=true", "mongodb://user:" + password + "@[::1/",
		"mongodb://user:" + password + "@127.0.0.1:1/?authSource=x&authMechanism=SCRAM-SHA-256", "mongodb://:" + password + "@host/",
	} {
		s, err := store.Open(t.Context(), store.Options{URI: secret.New(uri), Database: "d", Timeout: 50 * time.Millisecond})
		require.Error(t, err, uri)
		require.Nil(t, s)
		require.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), password, uri)
	}
}

func TestAServerThatDoesNotAnswerIsTold(t *testing.T) {
	_, err := store.Open(t.Context(), store.Options{
		URI: secret.New("mongodb://127.0.0.1:1/?directConnection=true"), Database: "d", Timeout: 50 * time.Millisecond,
	})
	require.ErrorContains(t, err, "reaching MongoDB")
}

func TestErrorsOfAnAbsentServerSayWhatWasBeingDone(t *testing.T) {
	db := enginestest.MongoDB(t)
	s := connect(t, options(t, db))
	db.Stop()
	var ctx context.Context // of the call under way
	g := active("g")
	g.Rev = 4
	for doing, call := range map[string]func() error{
		"reading grant g":                     func() error { _, err := s.Get(ctx, "g"); return err },
		"reading users' grants":               func() error { _, err := s.ByUser(ctx, "u"); return err },
		"inserting grant g":                   func() error { return s.Insert(ctx, active("g")) },
		"saving grant g":                      func() error { return s.Save(ctx, g) },
		"deleting grant g":                    func() error { return s.Delete(ctx, g) },
		"leasing grant g":                     func() error { _, _, err := s.Acquire(ctx, store.LeaseRequest{GrantID: "g"}); return err },
		"clearing the outbox of grant g":      func() error { return s.ClearOutbox(ctx, g, "s") },
		"recording the rescheduling of":       func() error { return s.RecordReschedule(ctx, g, now) },
		"listing the streams of schedules":    func() error { _, err := s.OtherStreams(ctx, []string{"s"}); return err },
		"listing grants without a schedule":   func() error { _, err := s.ScheduledIn(ctx, "s", now, store.Place{}, 0, 1); return err },
		"listing overdue grants":              func() error { _, err := s.Overdue(ctx, now, store.Place{}, 1); return err },
		"listing unsent events":               func() error { _, err := s.Unsent(ctx, now, store.Place{}, 1); return err },
		"listing records to drop":             func() error { _, err := s.Purgeable(ctx, now, store.Place{}, 1); return err },
		"recording a disconnect":              func() error { return s.RecordRevocation(ctx, store.Scope{User: "u"}, now, now) },
		"reading disconnects":                 func() error { _, err := s.Revocations(ctx, "u", "b", nil); return err },
		"dropping old disconnects":            func() error { return s.PurgeRevocations(ctx, now) },
		"storing data key k":                  func() error { return s.PutKey(ctx, dataKey("k")) },
		"reading data key k":                  func() error { _, err := s.Key(ctx, "k"); return err },
		"reading the stream's identity":       func() error { _, err := s.StreamIdentity(ctx); return err },
		"storing the stream's identity":       func() error { return s.RememberStream(ctx, "x") },
		"listing the indexes of collection g": func() error { return s.Ensure(ctx) },
	} {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond) //nolint:fatcontext // each begins with the test's
		err := call()
		cancel()
		require.ErrorContains(t, err, doing)
		require.NotErrorIs(t, err, store.ErrConflict, doing)
		require.NotErrorIs(t, err, store.ErrNotFound, doing)
	}
	require.Error(t, s.Ping(ctx))
	require.EqualValues(t, 4, g.Rev, "a failed write leaves the revision")
}

func TestWritesAreNotLostByARestart(t *testing.T) {
	db := enginestest.MongoDB(t)
	o := options(t, db)
	s := connect(t, o)
	insert(t, s, active("g"))
	db.Restart()
	require.Equal(t, "g", get(t, s, "g").ID)
}
