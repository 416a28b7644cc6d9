package worker_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
)

func TestDisconnectForgetsWhatLiesInItsScope(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	for name, c := range map[string]struct {
		broker, account string
		left            []string
	}{
		"user":              {"", "", nil},
		"broker":            {"coinbase", "", []string{"c"}},
		"account":           {"", "c", []string{"a", "b"}},
		"account of broker": {"coinbase", "a", []string{"b", "c"}},
		"nothing":           {"coinbase", "c", []string{"a", "b", "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.in(t)
			user := name
			h.publishConnected(user, h.issueSpec(meshsim.ConnectSpec{BrokerType: "coinbase", SeparateRefreshTokens: true}, "a", "b"), time.Time{})
			h.publishConnected(user, h.issue("kraken", "c"), time.Time{})
			grants := map[string]string{}
			for n := 1; n <= 3; n++ {
				stored := h.nth(events.TokenStored, user, n)
				grants[stored.Data.Accounts[0].AccountID] = stored.Data.GrantID
				h.eventually(func() bool { return h.scheduled(stored.Data.GrantID) }, "no schedule")
			}
			h.disconnect(user, c.broker, c.account)
			h.handled()
			for n := 1; n <= 3-len(c.left); n++ {
				revoked := h.nth(events.TokenRevoked, user, n)
				require.Equal(t, events.ReasonDisconnected, revoked.Data.Reason)
				require.False(t, h.scheduled(revoked.Data.GrantID))
				require.NotContains(t, c.left, revoked.Data.Accounts[0].AccountID)
			}
			require.Len(t, h.eventsOf(events.TokenRevoked, user), 3-len(c.left))
			h.eventually(func() bool { return len(h.grants(user)) == len(c.left) }, "documents remain")
			var left []string
			for _, g := range h.grants(user) {
				left = append(left, g.Accounts[0].ID)
				require.True(t, h.scheduled(g.ID))
			}
			require.ElementsMatch(t, c.left, left)
			reply, code, _ := h.ask(events.TokenRequest{UserID: user})
			require.Len(t, reply.AccessTokens, len(c.left))
			if len(c.left) == 0 {
				require.Equal(t, events.CodeUnknownUser, code)
			}
		})
	}
	require.Empty(t, h.stack.Mesh.Ledger().Requests, "Mesh is not told unless that is wanted")
}

func TestDisconnectOfOneAccountLeavesTheOthersOfItsGrant(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	h.publishConnected("u", h.issue("coinbase", "a", "b"), time.Time{})
	stored := h.event(events.TokenStored, "u")
	h.disconnect("u", "coinbase", "a")
	trimmed := h.nth(events.TokenStored, "u", 2)
	require.Equal(t, stored.Data.GrantID, trimmed.Data.GrantID)
	require.Equal(t, []events.Account{{AccountID: "b", AccountName: "Account b"}}, trimmed.Data.Accounts)
	reply := h.get(h.refusing(events.TokenRequest{UserID: "u"}))
	require.Len(t, reply.AccessTokens, 1)
	require.Equal(t, "b", reply.AccessTokens[0].AccountID)
	require.Len(t, h.event(events.TokenRefreshed, "u").Data.Accounts, 1, "the refresh does not bring it back")
}

func TestDisconnectDuringARefreshWins(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker()
	h.connectAged("u", due, spec("coinbase"), "a", meshsim.Delay(2*time.Second, 2*time.Second))
	h.eventually(func() bool { return len(h.underWay("a")) > 0 }, "no refresh")
	h.disconnect("u", "", "")
	revoked := h.event(events.TokenRevoked, "u")
	h.requests("a") // until the answer is there
	w.stop()        // and handled
	require.Empty(t, h.grants("u"))
	require.False(t, h.scheduled(revoked.Data.GrantID))
	require.Empty(t, h.eventsOf(events.TokenRefreshed, "u"))
}

func TestDisconnectRemovesAtMeshWhereWanted(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	o := &onCall{harness: h}
	h.worker("LATCHKEY_MESH_REMOVE_ON_DISCONNECT=true")
	h.connectAged("u", fresh, spec("coinbase"), "a")
	h.connectAged("v", fresh, spec("coinbase"), "b")
	h.event(events.TokenStored, "u")
	h.event(events.TokenStored, "v")
	fault, err := h.stack.Mesh.Inject(meshsim.Fault{AccountID: "b", Operation: meshsim.OpRemove, Action: meshsim.Envelope(meshsim.StatusServerFailure)})
	require.NoError(t, err)
	h.disconnect("u", "", "")
	require.Contains(t, o.ok("users", "erase", "v", "--yes"), "removals at Mesh under way  1")
	h.event(events.TokenRevoked, "u")
	require.Equal(t, events.ReasonRemoved, h.event(events.TokenRemoval, "u").Data.Reason)
	require.Equal(t, meshsim.OpRemove, h.requests("a")[0].Operation)
	require.Equal(t, meshsim.DeadByRemoval, h.chain("a").DeadBecause)
	h.event(events.TokenRevoked, "v")
	_, code, _ := h.ask(events.TokenRequest{UserID: "v"})
	require.Equal(t, events.CodeUnknownUser, code, "forgetting does not wait for Mesh")
	h.eventually(func() bool { return len(h.requests("b")) > 2 }, "it is not tried again")
	require.Len(t, h.grants("v"), 1)
	require.Contains(t, o.ok("grants", "show", h.grants("v")[0].ID), "removal at Mesh")
	h.stack.Mesh.ClearFaults(fault...)
	require.Equal(t, events.ReasonRemoved, h.event(events.TokenRemoval, "v").Data.Reason)
	require.Equal(t, meshsim.DeadByRemoval, h.chain("b").DeadBecause)
	h.eventually(func() bool { return len(h.grants("u"))+len(h.grants("v")) == 0 }, "documents remain")
}

// A user who connects again while accounts are being removed at Mesh keeps what is
// not removed yet.
func TestNothingIsRemovedAtMeshOfAUserWhoIsBack(t *testing.T) {
	t.Parallel()
	removals, goOn := make(chan struct{}, 10), make(chan struct{})
	h := startWith(t, stack.Options{MeshFault: func(r *http.Request) bool {
		if r.Method == http.MethodDelete {
			removals <- struct{}{}
			<-goOn
		}
		return false
	}})
	w := h.worker("LATCHKEY_MESH_REMOVE_ON_DISCONNECT=true")
	h.publishConnected("u", h.issue("coinbase", "a", "b"), time.Now().Add(-fresh))
	h.event(events.TokenStored, "u")
	again := h.issue("coinbase", "a", "b")
	h.disconnect("u", "", "")
	<-removals
	h.event(events.TokenRevoked, "u")
	_, code, _ := h.ask(events.TokenRequest{UserID: "u"})
	require.Equal(t, events.CodeUnknownUser, code, "nothing is given out while Mesh hangs")
	h.publishConnected("u", again, time.Now())
	h.nth(events.TokenStored, "u", 2)
	close(goOn)
	h.handled()
	w.stop()
	require.Empty(t, removals)
	require.Len(t, h.grants("u"), 1)
	require.Nil(t, h.grants("u")[0].Removal)
	require.Empty(t, h.chain("b").DeadBecause)
}

func TestConnectAfterDisconnectStartsAnew(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	h.connectAged("u", fresh, spec("coinbase"), "a")
	h.event(events.TokenStored, "u")
	h.disconnect("u", "", "")
	h.event(events.TokenRevoked, "u")
	c := h.connectAged("u", -time.Second, spec("coinbase"), "a")
	h.nth(events.TokenStored, "u", 2)
	require.Equal(t, c.Accounts[0].AccessToken.Reveal(), h.get(events.TokenRequest{UserID: "u"}).AccessTokens[0].AccessToken.Reveal())
	h.get(h.refusing(events.TokenRequest{UserID: "u"}))
	h.event(events.TokenRefreshed, "u")
}
