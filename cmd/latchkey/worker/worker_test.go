package worker_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

func TestConnectedTokenIsStoredRefreshedAndHandedOut(t *testing.T) {
	h := start(t, map[string]meshsim.Institution{
		"coinbase": {AccessLifetime: 6 * time.Second, RefreshLifetime: time.Hour},
	})
	w := h.worker()
	c := h.connect("user.1", meshsim.ConnectSpec{
		BrokerType: "coinbase", BrokerName: "Coinbase", LogoBytes: meshsim.TypicalLogoBytes,
		Accounts: []meshsim.Account{{ID: "a", Name: "Alice"}, {ID: "b", Name: "Bob"}},
	})

	stored := h.event(events.TokenStored, "user.1")
	require.Equal(t, "coinbase", stored.Data.BrokerType)
	require.EqualValues(t, 1, stored.Data.Version)
	require.Len(t, stored.Data.Accounts, 2)

	refreshed := h.event(events.TokenRefreshed, "user.1")
	require.EqualValues(t, 2, refreshed.Data.Version)
	require.Equal(t, stored.Data.GrantID, refreshed.Data.GrantID)

	reply := h.get(events.TokenRequest{UserID: "user.1", MinTTLSeconds: new(int64)})
	require.Len(t, reply.AccessTokens, 2)
	for _, token := range reply.AccessTokens {
		require.NotEqual(t, c.Accounts[0].AccessToken.Reveal(), token.AccessToken.Reveal())
		valid, why := h.stack.Mesh.AccessTokenState(token.AccessToken)
		require.True(t, valid, why)
	}
	w.stop()
	require.Empty(t, h.stack.Mesh.Ledger().ReplacedPresented())
}
