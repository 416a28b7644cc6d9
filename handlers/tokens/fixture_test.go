package tokens

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim/kmssimtest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options/optionstest"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/envelope/envelopetest"
	"github.com/latchkey/latchkey/store/streams/streamstest"
)

// patience bounds every wait, which ends as soon as what it waits for is there.
const patience = 60 * time.Second

// fixture is a broker with the streams, and what services need.
type fixture struct {
	t        testing.TB
	js       jetstream.JetStream
	subjects events.Subjects
	sealing  envelope.Options
	log      *zap.Logger
	logs     *enginestest.Text
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	return newFixtureOn(t, enginestest.NATS(t))
}

func newFixtureOn(t testing.TB, broker *enginestest.Broker) *fixture {
	t.Helper()
	nc, err := nats.Connect(broker.URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	f := &fixture{t: t, js: js, logs: &enginestest.Text{}}
	f.subjects.Prefix = strings.ReplaceAll(enginestest.Name(t), "_", "-")
	f.log = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), f.logs, zap.DebugLevel))
	cfg := config.Default()
	cfg.NATS.Prefix, cfg.NATS.Partitions = f.subjects.Prefix, 1
	_, err = streamstest.New(f.js, cfg, f.log).Ensure(t.Context())
	require.NoError(t, err)
	return f
}

func (f *fixture) envelope() *envelope.Envelope {
	f.t.Helper()
	server := kmssimtest.Start(f.t, "alias/test")
	f.sealing = envelope.Options{KMS: server.Client(), Store: &envelopetest.Keys{}, KeyID: "alias/test"}
	return f.reopened()
}

// reopened is the envelope of a process that has just started.
func (f *fixture) reopened() *envelope.Envelope {
	f.t.Helper()
	e, err := envelope.New(f.sealing)
	require.NoError(f.t, err)
	return e
}

// unread is a store that nobody reads.
type unread struct{ Store }

// opener is a refresher that refreshes nothing.
type opener struct {
	Refresher
	envelope *envelope.Envelope
}

func (o opener) HasDataKey(g *store.Grant) bool { return o.envelope.Cached(g.Sealed.KeyID) }
func (o opener) Access(ctx context.Context, g *store.Grant) (*store.Grant, *store.AccessTexts, error) {
	return store.OpenAccess(ctx, o.envelope, g)
}
func (o opener) SuspendedFor(string) time.Duration { return 0 }

// tokenService is a service that is not started, over an envelope and what load
// says is stored.
func (f *fixture) tokenService(e *envelope.Envelope, load func(ctx context.Context, userID string) ([]*store.Grant, error)) *Service {
	f.t.Helper()
	cfg := config.Default()
	log := f.log
	if log == nil {
		log = zap.NewNop()
	}
	s, err := New(Options{
		Store: unread{}, Refresher: opener{envelope: e}, Subjects: f.subjects, Config: cfg.Tokens, ClockSkew: cfg.Worker.ClockSkew,
		Now: time.Now, Log: log, Metrics: prometheus.NewRegistry(),
	})
	require.NoError(f.t, err)
	s.grants = newGrantCache(100, time.Hour, time.Now, load)
	return s
}

// left returns how many messages a stream holds.
func (f *fixture) left(stream string) int {
	f.t.Helper()
	s, err := f.js.Stream(f.t.Context(), stream)
	require.NoError(f.t, err)
	return int(s.CachedInfo().State.Msgs)
}

func (f *fixture) eventually(condition func() bool, what string) {
	f.t.Helper()
	require.Eventually(f.t, condition, patience, 10*time.Millisecond, what)
}

func TestEveryRequiredOptionIsNamed(t *testing.T) {
	optionstest.Required(t, New, Options{
		Store: unread{}, Refresher: opener{}, Config: config.Default().Tokens, Now: time.Now, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(),
	}, "Store", "Refresher", "Config", "Now", "Log", "Metrics")
}
