package streams

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string][2]int{
		"2.12.0": {2, 12}, "v2.15.2": {2, 15}, "3.0.0-beta.1": {3, 0}, "2.12.1-RC.3": {2, 12}, "10.0.0": {10, 0},
	} {
		major, minor, ok := parseVersion(text)
		require.True(t, ok, text)
		require.Equal(t, want, [2]int{major, minor}, text)
	}
	for _, text := range []string{"", "2", "2.12", "x.y.z", "2.x.1", "2..1"} {
		_, _, ok := parseVersion(text)
		require.False(t, ok, text)
	}
}

func TestServerWithoutJetStreamIsNamed(t *testing.T) {
	check := func(b *enginestest.Broker) error {
		nc, err := nats.Connect(b.URL())
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		require.NoError(t, err)
		return CheckServer(t.Context(), js)
	}
	require.NoError(t, check(enginestest.NATSWith(t, engines.NATSOptions{})))
	err := check(enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) { o.JetStream = false }}))
	require.ErrorIs(t, err, ErrNATS)
	require.ErrorContains(t, err, "JetStream is off")
}
