package worker_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

// A publisher that sends an old event again, without saying when the tokens
// were obtained, must not bring a spent refresh token back.
func TestAConnectPublishedAgainDoesNotBringASpentRefreshTokenBack(t *testing.T) {
	h := start(t, map[string]meshsim.Institution{
		"coinbase": {AccessLifetime: 4 * time.Second, RefreshLifetime: time.Hour},
	})
	w := h.worker()
	c := h.connect("alice", meshsim.ConnectSpec{BrokerType: "coinbase"})
	h.event(events.TokenRefreshed, "alice")
	h.publishConnected("alice", c, time.Time{})
	h.eventually(func() bool { return w.metric("latchkey_messages_total") >= 3 }, "the repetition is handled")
	h.nth(events.TokenRefreshed, "alice", 3)
	require.Len(t, h.eventsOf(events.TokenStored, "alice"), 1)
	require.Empty(t, h.eventsOf(events.TokenExpired, "alice"))
	w.stop()
	require.Empty(t, h.stack.Mesh.Ledger().ReplacedPresented())
}

// A clock that runs fast must not make a connect outrank what comes later.
func TestAConnectFromTheFutureCanBeDisconnected(t *testing.T) {
	h := start(t, nil)
	h.worker()
	c, err := h.stack.Mesh.Connect(meshsim.ConnectSpec{BrokerType: "coinbase"})
	require.NoError(t, err)
	h.publishConnected("alice", c, time.Now().Add(time.Hour))
	h.event(events.TokenStored, "alice")
	h.disconnect("alice", "", "")
	require.Equal(t, events.ReasonDisconnected, h.event(events.TokenRevoked, "alice").Data.Reason)
}
