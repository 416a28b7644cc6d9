package streams_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/streams"
)

// memory is a Memory that outlives brokers.
type memory struct {
	mu       sync.Mutex
	identity string
	suspect  bool
	claimed  string // the prefix for which the installation was claimed
}

func (m *memory) StreamsSeen(context.Context) (time.Time, error)             { return time.Time{}, nil }
func (m *memory) RecordStreamsSeen(context.Context, string, time.Time) error { return nil }
func (m *memory) Rename(context.Context, string) error                       { return nil }
func (m *memory) Installation(context.Context) (store.Installation, error) {
	return store.Installation{}, store.ErrNotFound
}

func (m *memory) ClaimInstallation(_ context.Context, i store.Installation) (store.Installation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i.ID, m.claimed = "test", i.Prefix
	return i, nil
}

func (m *memory) StreamIdentity(context.Context) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.identity, nil
}

func (m *memory) RememberStream(_ context.Context, identity string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.identity, m.suspect = identity, false
	return nil
}

func (m *memory) SuspectStreams(context.Context) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := !m.suspect
	m.suspect = true
	return first, nil
}

// streamsOn starts a broker on a folder and returns streams on it.
func streamsOn(t *testing.T, dir, key string, m *memory, recreate bool) (*engines.NATS, jetstream.JetStream, *streams.Topology) {
	t.Helper()
	broker, err := engines.StartNATS(engines.NATSOptions{Dir: dir, Key: key})
	require.NoError(t, err)
	t.Cleanup(broker.Stop)
	nc, err := nats.Connect(broker.URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	cfg := config.Default()
	cfg.NATS.RecreateStreams = recreate
	return broker, js, must(streams.New(streams.Options{JetStream: js, State: m, Config: cfg, Log: zap.NewNop()}))
}

func TestAWrongEncryptionKeyDestroysNothing(t *testing.T) {
	dir, m, subjects := t.TempDir(), &memory{}, events.Subjects{}
	broker, js, topology := streamsOn(t, dir, "right", m, false)
	first, err := topology.Ensure(t.Context())
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), subjects.Recovery("grant"), []byte("an answer"))
	require.NoError(t, err)
	broker.Stop()

	broker, _, topology = streamsOn(t, dir, "wrong", m, false)
	_, err = topology.Ensure(t.Context())
	require.ErrorIs(t, err, streams.ErrGone)
	require.ErrorContains(t, err, "another encryption key")
	for range 2 { // nor does anybody else who tries, nor trying again
		_, err = topology.Ensure(t.Context())
		require.ErrorIs(t, err, streams.ErrGone)
		_, err = topology.Identities(t.Context())
		require.ErrorIs(t, err, streams.ErrGone)
	}
	broker.Stop()

	_, js, topology = streamsOn(t, dir, "right", m, false)
	again, err := topology.Ensure(t.Context())
	require.NoError(t, err)
	require.Equal(t, first, again)
	recovery, err := js.Stream(t.Context(), subjects.RecoveryStream())
	require.NoError(t, err)
	require.EqualValues(t, 1, recovery.CachedInfo().State.Msgs)
}

func TestAWipedBrokerGetsItsStreamsAgain(t *testing.T) {
	m := &memory{}
	broker, _, topology := streamsOn(t, t.TempDir(), "key", m, false)
	first, err := topology.Ensure(t.Context())
	require.NoError(t, err)
	require.NoError(t, broker.Wipe())
	require.NoError(t, broker.Restart())
	var second []string
	require.Eventually(t, func() bool {
		second, err = topology.Identities(t.Context())
		return err == nil
	}, time.Minute, 20*time.Millisecond)
	require.NotEqual(t, first, second)
}

func TestStreamsAreRecreatedOnDemand(t *testing.T) {
	m := &memory{identity: "remembered", suspect: true}
	_, _, topology := streamsOn(t, t.TempDir(), "key", m, false)
	_, err := topology.Ensure(t.Context())
	require.ErrorIs(t, err, streams.ErrGone)
	require.ErrorContains(t, err, "nats.recreate_streams")

	_, _, topology = streamsOn(t, t.TempDir(), "key", m, true)
	_, err = topology.Ensure(t.Context())
	require.NoError(t, err)
}
