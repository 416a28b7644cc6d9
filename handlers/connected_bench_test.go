package handlers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// BenchmarkConnect takes the connects of users who are new from the bytes of
// the message to the grant that is stored, scheduled and announced, one after
// the other. Engines run in this process, but for PostgreSQL: most of the time,
// and of what is allocated, is FerretDB's and not the handler's. Without
// PostgreSQL FerretDB reads the whole collection to find a user, so that a
// connect takes the longer the more there were.
func BenchmarkConnect(b *testing.B) {
	f := newFixture(b)
	handle := f.connected()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		require.NoError(b, handle(b.Context(), message.NewMessage("", connectOf(fmt.Sprint("user-", n)))))
	}
	require.Equal(b, n, f.left(f.subjects.RefreshStream()))
	require.Equal(b, n, f.left(f.subjects.LifecycleStream()))
}

// connected handles connects as a worker does, with a database of its own.
func (f *fixture) connected() Handler {
	f.t.Helper()
	var opts engines.FerretDBOptions
	if pg := enginestest.IfPostgres(f.t); pg != nil {
		opts.PostgresURL = pg.URL()
	}
	db := enginestest.MongoDBWith(f.t, opts)
	s, err := store.Open(f.t.Context(), store.Options{URI: secret.New(db.URI()), Database: enginestest.Name(f.t), Timeout: patience, AppName: "handlers-test"})
	require.NoError(f.t, err)
	f.t.Cleanup(func() { _ = s.Close(context.Background()) })
	require.NoError(f.t, s.Ensure(f.t.Context()))
	require.NoError(f.t, db.Embedded().AddIndexes(f.t.Context()))

	cfg := config.Default()
	dispatcher, err := refresher.NewDispatcher(refresher.DispatcherOptions{
		JetStream: f.js, Store: s, Subjects: f.subjects, Horizon: cfg.Refresh.Horizon, Now: time.Now, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(),
	})
	require.NoError(f.t, err)
	identities, err := f.streams.Ensure(f.t.Context())
	require.NoError(f.t, err)
	dispatcher.SetStreams(identities)
	settler, err := refresher.NewSettler(refresher.SettlerOptions{Config: cfg, Subjects: f.subjects, Now: time.Now, NewID: nats.NewInbox, Rand: rand.Float64})
	require.NoError(f.t, err)
	env := f.envelope()
	connector, err := NewConnector(ConnectorOptions{
		Store: s, Envelope: env, Fingerprints: must(store.NewFingerprints(store.FingerprintOptions{Store: s, Envelope: env, Log: zap.NewNop()})),
		Settler: settler, Dispatcher: dispatcher, Log: zap.NewNop(),
	})
	require.NoError(f.t, err)
	return Connected(connector, nil, cfg.Connect)
}

// connectOf is a connect whose tokens have to be refreshed within the hour.
func connectOf(user string) []byte {
	return fmt.Appendf(nil, `{"userId":%q,"payload":{"accessToken":{"brokerType":"bench","brokerName":"Bench",`+
		`"expiresInSeconds":3600,"refreshTokenExpiresInSeconds":86400,"accountTokens":[{`+
		`"account":{"accountId":"account","accountName":"Account"},"accessToken":"a%[2]s","refreshToken":"r%[2]s of %[1]s"}]}}}`,
		user, strings.Repeat("x", 100))
}
