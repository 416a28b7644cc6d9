package worker_test

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
)

// TestEventsSayWhichInstallationTheyComeFrom: a subscriber to several can tell them apart.
func TestEventsSayWhichInstallationTheyComeFrom(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	rejections := make(chan *nats.Msg, 10)
	_, err := h.nc.ChanSubscribe(h.subjects.RejectedAll(), rejections)
	require.NoError(t, err)
	h.worker()
	h.connectAged("alice", fresh, spec("coinbase"), "a")
	require.Equal(t, "latchkey/"+h.identity(), h.event(events.TokenStored, "alice").Source)
	h.publish(h.subjects.Connected(), `{"userId":"bob","payload":{"brokerType":"coinbase","accountTokens":[]}}`)
	rejected, err := events.DecodeRejected(enginestest.Receive(t, rejections).Data)
	require.NoError(t, err)
	require.Equal(t, "latchkey/"+h.identity(), rejected.Source)
}
