package streams_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/store/streams"
)

// without is JetStream of which one stream has no leader.
type without struct {
	jetstream.JetStream
	stream string
}

func (w *without) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	if name == w.stream || w.stream == "*" {
		return nil, context.DeadlineExceeded
	}
	return w.JetStream.Stream(ctx, name)
}

func (w *without) Consumer(ctx context.Context, stream, name string) (jetstream.Consumer, error) {
	if stream == w.stream {
		return nil, context.DeadlineExceeded
	}
	return w.JetStream.Consumer(ctx, stream, name)
}

// A partition that is away keeps reconciliation from none of the others.
func TestAPartitionThatIsAwayHidesNoOther(t *testing.T) {
	broker, err := engines.StartNATS(engines.NATSOptions{Dir: t.TempDir(), Key: "key"})
	require.NoError(t, err)
	t.Cleanup(broker.Stop)
	nc, err := nats.Connect(broker.URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	inner, err := jetstream.New(nc)
	require.NoError(t, err)
	js := &without{JetStream: inner}
	cfg := config.Default()
	cfg.NATS.Partitions = 3
	s := must(streams.New(streams.Options{JetStream: js, State: &memory{}, Config: cfg, Log: zap.NewNop()}))
	all, err := s.Ensure(t.Context())
	require.NoError(t, err)
	for _, p := range cfg.NATS.Subjects().RefreshPartitions() {
		for _, subject := range []string{p.Due, p.Urgent} {
			_, err := s.Consumer(t.Context(), p.Stream, subject)
			require.NoError(t, err)
		}
	}
	for n, p := range cfg.NATS.Subjects().RefreshPartitions() {
		js.stream = p.Stream
		identities, err := s.Identities(t.Context())
		require.NoError(t, err)
		require.Equal(t, all, identities)
		queues, err := s.DueQueues(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		for i, q := range queues {
			require.Equal(t, i == n, q.Unreadable)
		}
	}
	js.stream = "*"
	_, err = s.Identities(t.Context())
	require.ErrorIs(t, err, context.DeadlineExceeded, "nothing is known where none is there")
	js.stream = "LATCHKEY_REFRESH_1"
	_, err = must(streams.New(streams.Options{JetStream: js, State: &memory{}, Config: cfg, Log: zap.NewNop()})).Identities(t.Context())
	require.ErrorIs(t, err, context.DeadlineExceeded, "nor before they were seen")
}

func TestIdentitiesOfPartitions(t *testing.T) {
	broker, err := engines.StartNATS(engines.NATSOptions{Dir: t.TempDir(), Key: "key"})
	require.NoError(t, err)
	t.Cleanup(broker.Stop)
	nc, err := nats.Connect(broker.URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	core, logs := observer.New(zap.ErrorLevel)
	m := &memory{}
	with := func(partitions int) *streams.Topology {
		cfg := config.Default()
		cfg.NATS.Partitions = partitions
		return must(streams.New(streams.Options{JetStream: js, State: m, Config: cfg, Log: zap.New(core)}))
	}
	ensure := func(partitions int) []string {
		t.Helper()
		identities, err := with(partitions).Ensure(t.Context())
		require.NoError(t, err)
		require.Len(t, identities, partitions)
		looked, err := with(partitions).Identities(t.Context())
		require.NoError(t, err)
		require.Equal(t, identities, looked)
		return identities
	}

	one := ensure(1)
	require.NotContains(t, one[0], "/")
	require.Equal(t, one[0], m.identity, "what is remembered has the form of before there were partitions")
	four := ensure(4)
	require.Equal(t, one[0], four[0], "schedules of before stay where they are")
	require.Equal(t, four[:2], ensure(2))
	require.Equal(t, four, ensure(4), "partitions that are back are those of before")
	require.Empty(t, logs.All(), "nothing is lost by any of this")

	// A stream that is gone while the first is there was removed, and is made
	// again without asking: NATS has its right key.
	require.NoError(t, js.DeleteStream(t.Context(), "LATCHKEY_REFRESH_2"))
	again, err := with(4).Identities(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, four[2], again[2])
	again[2] = four[2]
	require.Equal(t, four, again, "only its own schedules are made again")
	require.Equal(t, 1, logs.Len())
	require.Equal(t, []any{"LATCHKEY_REFRESH_2"}, logs.All()[0].ContextMap()["streams"])

	// The canary shows as much where the first is gone.
	require.NoError(t, js.DeleteStream(t.Context(), "LATCHKEY_REFRESH"))
	m.suspect = true
	_, err = with(4).Identities(t.Context())
	require.NoError(t, err)

	// Both of them gone is another matter.
	require.NoError(t, js.DeleteStream(t.Context(), "LATCHKEY_REFRESH"))
	require.NoError(t, js.DeleteStream(t.Context(), "LATCHKEY_CANARY"))
	m.suspect = true
	_, err = with(4).Identities(t.Context())
	require.ErrorIs(t, err, streams.ErrGone)
}
