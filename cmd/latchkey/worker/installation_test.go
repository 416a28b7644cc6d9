package worker_test

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/streams"
)

// owner is the identity that the streams say.
func (h *harness) owner(js jetstream.JetStream) string {
	h.t.Helper()
	stream, err := js.Stream(h.ctx, h.subjects.RefreshStream())
	if err != nil {
		return ""
	}
	return stream.CachedInfo().Config.Metadata["latchkey-installation"]
}

func (h *harness) meta() *mongo.Collection {
	return h.mongo().Database(h.database).Collection("meta")
}

// identity is that of the installation, as the database says.
func (h *harness) identity() string {
	h.t.Helper()
	var doc struct{ ID string }
	require.NoError(h.t, h.meta().FindOne(h.ctx, bson.D{{Key: "_id", Value: "installation"}}).Decode(&doc))
	return doc.ID
}

// A worker that is given the database of one installation and the NATS of
// another, in whichever way, refuses to start, changes nothing, and says what to do.
func TestAWorkerRefusesWhatIsAnothers(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	const slow = "LATCHKEY_RECONCILE_INTERVAL=5s"
	h.worker(slow)
	id := h.identity()
	require.Equal(t, id, h.owner(h.js))

	fresh := enginestest.NATSWith(t, engines.NATSOptions{})
	theirs := enginestest.NATSWith(t, engines.NATSOptions{})
	other, err := h.tryWorker(slow, "LATCHKEY_NATS_URL="+theirs.URL(), "LATCHKEY_MONGODB_DATABASE="+enginestest.Name(t))
	require.NoError(t, err)
	other.stop()

	indexes := h.mongo().Database(h.database).Collection("grants").Indexes()
	require.NoError(t, indexes.DropAll(h.ctx))
	for name, settings := range map[string][]string{
		"another prefix":            {"LATCHKEY_NATS_PREFIX=other"},
		"another database":          {"LATCHKEY_MONGODB_DATABASE=" + enginestest.Name(t)},
		"another's NATS":            {"LATCHKEY_NATS_URL=" + theirs.URL()},
		"a NATS that holds nothing": {"LATCHKEY_NATS_URL=" + fresh.URL()},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.in(t)
			_, err := h.tryWorker(append(settings, slow)...)
			require.ErrorIs(t, err, streams.ErrOtherInstallation)
			require.ErrorContains(t, err, "nats.adopt_streams")
			require.Equal(t, id, h.identity())
			require.Equal(t, id, h.owner(h.js))
			there, err := indexes.ListSpecifications(h.ctx)
			require.NoError(t, err)
			require.Len(t, there, 1, "only that of _id")
		})
	}
	h.connectAged("u", due, spec("coinbase"), "a")
	h.event(events.TokenRefreshed, "u")
}

// What was replaced on purpose is taken over where the configuration says so.
func TestStreamsAndDatabaseCanBeAdopted(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker().stop()
	id := h.owner(h.js)
	h.database = enginestest.Name(t)
	_, err := h.tryWorker()
	require.ErrorIs(t, err, streams.ErrOtherInstallation)
	h.worker("LATCHKEY_NATS_ADOPT_STREAMS=true").stop()
	require.NotEqual(t, id, h.owner(h.js))
	require.Equal(t, h.identity(), h.owner(h.js))
	h.worker().stop()

	h.subjects.Prefix += "other"
	_, err = h.tryWorker()
	require.ErrorIs(t, err, streams.ErrOtherInstallation)
	h.worker("LATCHKEY_NATS_ADOPT_STREAMS=true").stop()
	h.worker()
	require.Equal(t, h.identity(), h.owner(h.js))
}

// A running worker that meets another installation's stops and says so.
func TestARunningWorkerStopsAtAnothersInstallation(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*harness){
		"the database says another": func(h *harness) {
			_, err := h.meta().UpdateOne(h.ctx, bson.D{{Key: "_id", Value: "installation"}}, bson.D{{Key: "$set", Value: bson.D{{Key: "id", Value: "another"}}}})
			require.NoError(h.t, err)
		},
		"the database has another prefix": func(h *harness) {
			_, err := h.meta().UpdateOne(h.ctx, bson.D{{Key: "_id", Value: "installation"}}, bson.D{{Key: "$set", Value: bson.D{{Key: "prefix", Value: "x"}}}})
			require.NoError(h.t, err)
		},
		"the database is another": func(h *harness) {
			require.NoError(h.t, h.mongo().Database(h.database).Drop(h.ctx))
		},
		"the streams say another": func(h *harness) {
			stream, err := h.js.Stream(h.ctx, h.subjects.RefreshStream())
			require.NoError(h.t, err)
			cfg := stream.CachedInfo().Config
			cfg.Metadata = map[string]string{"latchkey-installation": "another"}
			_, err = h.js.UpdateStream(h.ctx, cfg)
			require.NoError(h.t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, nil)
			w := h.worker()
			change(h)
			require.ErrorIs(t, w.ends(), streams.ErrOtherInstallation)
		})
	}
}

func TestManyFirstWorkersAreOneInstallation(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if _, err := h.tryWorker(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.Equal(t, h.identity(), h.owner(h.js))
}

// Workers of older versions know nothing of it, and take out of the streams what
// they don't know.
func TestAnIdentityThatWasTakenOutComesBack(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	id := h.owner(h.js)
	require.NotEmpty(t, id)
	stream, err := h.js.Stream(h.ctx, h.subjects.RefreshStream())
	require.NoError(t, err)
	cfg := stream.CachedInfo().Config
	cfg.Metadata = nil
	_, err = h.js.UpdateStream(h.ctx, cfg)
	require.NoError(t, err)
	h.eventually(func() bool { return h.owner(h.js) == id }, "the streams don't say whose they are")

	require.NoError(t, h.js.DeleteStream(h.ctx, h.subjects.RefreshStream()))
	h.eventually(func() bool { return h.owner(h.js) == id }, "the stream that was made again does not say whose it is")
}

// Commands that write with database and NATS refuse to where these belong to
// different installations, as a worker does; those that use the database alone
// look at its prefix.
func TestCommandsRefuseWhatIsAnothers(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker()
	h.publish(h.subjects.Connected(), "junk")
	h.deadLetters(1)
	letter := (&onCall{harness: h}).letters()[0].ID
	w.stop()
	theirs := enginestest.NATSWith(t, engines.NATSOptions{})
	other, err := h.tryWorker("LATCHKEY_NATS_URL="+theirs.URL(), "LATCHKEY_MONGODB_DATABASE="+enginestest.Name(t))
	require.NoError(t, err)
	other.stop()

	command := func(setting string, args ...string) (code int, stderr string) {
		var out, errs bytes.Buffer
		code = cli.Run(h.ctx, args, append(append(h.stack.Environ(), h.settings()...), setting), &out, &errs)
		return code, errs.String()
	}
	both := [][]string{
		{"keys", "prune"},
		{"keys", "prune", "--dry-run"},
		{"keys", "reseal"},
		{"keys", "status", "--keys"},
		{"users", "erase", "--yes", "u"},
		{"grants", "refresh", "g"},
	}
	for name, c := range map[string]struct {
		setting  string
		commands [][]string
	}{
		"another's NATS":              {"LATCHKEY_NATS_URL=" + theirs.URL(), both},
		"a database that is nobody's": {"LATCHKEY_MONGODB_DATABASE=" + enginestest.Name(t), append(slices.Clone(both), []string{"deadletters", "replay", letter})},
		"another prefix":              {"LATCHKEY_NATS_PREFIX=other", append(slices.Clone(both), []string{"keys", "rewrap"})},
	} {
		for _, args := range c.commands {
			t.Run(name+"/"+strings.Join(args, " "), func(t *testing.T) {
				code, stderr := command(c.setting, args...)
				require.Equal(t, cli.ExitFailed, code)
				require.Contains(t, stderr, streams.ErrOtherInstallation.Error())
			})
		}
	}
}
