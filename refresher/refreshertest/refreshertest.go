// Package refreshertest gives tests refreshers that speak real protocols: with an
// embedded broker and database, simulators of KMS and Mesh, and a clock that only the
// test moves. It is for tests only.
package refreshertest

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/latchkey/latchkey/cmd/sandbox/clocktest"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim/kmssimtest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/streams"
)

// Patience bounds every wait. It is no expectation of speed.
const Patience = time.Minute

// Rig is all that workers share.
type Rig struct {
	T            *testing.T
	Clock        *clocktest.Clock
	Subjects     events.Subjects
	Broker       *enginestest.Broker
	DB           *enginestest.Database
	DatabaseName string
	JS           jetstream.JetStream
	Streams      *streams.Topology
	KMS          kmssimtest.Server
	Sim          *meshsim.Server
	// MeshURL is that of Sim; tests put that of a meshsimtest.Server in its place.
	MeshURL string
	// DBTimeout is the workers' mongodb.timeout.
	DBTimeout time.Duration
	Logs      *observer.ObservedLogs
	Log       *zap.Logger

	// Blocked receives when [Rig.Block] stops a refresh, which continues when Unblock does.
	Blocked, Unblock chan struct{}

	workers []*Worker
}

// New starts what workers share, until the test ends. It skips the test in short mode.
func New(t *testing.T) *Rig {
	t.Helper()
	if testing.Short() {
		t.Skip("plays against the engines: not in short mode")
	}
	r := &Rig{
		T: t, Clock: clocktest.New(store.Milli(time.Now())), Broker: enginestest.NATS(t), DB: enginestest.MongoDB(t),
		DatabaseName: enginestest.Name(t), Blocked: make(chan struct{}, 1), Unblock: make(chan struct{}, 1), DBTimeout: 2 * time.Second,
		KMS: kmssimtest.Start(t, "alias/test"),
	}
	r.Subjects.Prefix = strings.ReplaceAll(r.DatabaseName, "_", "-")
	core, logs := observer.New(zapcore.DebugLevel)
	r.Log, r.Logs = zap.New(core), logs

	nc, err := nats.Connect(r.Broker.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	r.JS, err = jetstream.New(nc, jetstream.WithDefaultTimeout(2*time.Second))
	require.NoError(t, err)
	d := config.Default()
	d.NATS.Prefix = r.Subjects.Prefix
	memory, err := store.Open(t.Context(), store.Options{URI: secret.New(r.DB.URI()), Database: r.DatabaseName, Timeout: 5 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { _ = memory.Close(context.Background()) })
	r.Streams, err = streams.New(streams.Options{JetStream: r.JS, State: memory, Config: d, Log: r.Log})
	require.NoError(t, err)
	_, err = r.Streams.Ensure(t.Context())
	require.NoError(t, err)

	r.Sim, err = meshsim.New(meshsim.Config{Seed: secret.New("seed"), Clock: r.Clock.Now, Sleep: func(ctx context.Context, _ time.Duration) error {
		r.Blocked <- struct{}{}
		select {
		case <-r.Unblock:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}})
	require.NoError(t, err)
	meshServer := httptest.NewServer(r.Sim)
	t.Cleanup(func() { require.NoError(t, r.Sim.Close()); meshServer.Close() })
	r.MeshURL = meshServer.URL
	t.Cleanup(r.noTokenInLogs)
	return r
}

// noTokenInLogs looks for the simulator's tokens, which share a prefix.
func (r *Rig) noTokenInLogs() {
	for _, e := range r.Logs.All() {
		encoded, err := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()).EncodeEntry(e.Entry, e.Context)
		require.NoError(r.T, err)
		require.NotContains(r.T, encoded.String(), "sim-")
	}
}
