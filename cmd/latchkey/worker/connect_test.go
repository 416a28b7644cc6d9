package worker_test

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

// The simulated brokers of most tests give tokens that live for an hour. A
// test says how old a connection is, and so what is due, whatever the speed of
// the machine.
const (
	life = time.Hour
	// fresh is far from its refresh.
	fresh = 0 * time.Minute
	// due is when the access token is to be refreshed and still good.
	due = 55 * time.Minute
	// over is past the end of the access token.
	over = 2 * time.Hour
)

// issue has the simulator issue tokens and publishes nothing.
func (h *harness) issue(broker string, accounts ...string) meshsim.Connection {
	h.t.Helper()
	return h.issueSpec(meshsim.ConnectSpec{BrokerType: broker}, accounts...)
}

func (h *harness) issueSpec(spec meshsim.ConnectSpec, accounts ...string) meshsim.Connection {
	h.t.Helper()
	for _, id := range accounts {
		spec.Accounts = append(spec.Accounts, meshsim.Account{ID: id, Name: "Account " + id})
	}
	c, err := h.stack.Mesh.Connect(spec)
	require.NoError(h.t, err)
	return c
}

// connectFor has a user connect, and returns the grant.
func (h *harness) connectFor(user string) string {
	h.t.Helper()
	h.publishConnected(user, h.issue("coinbase", user), time.Time{})
	return h.event(events.TokenStored, user).Data.GrantID
}

// connectAged issues tokens and publishes them as connected some time ago.
// What the next refreshes of the first account meet can be said.
func (h *harness) connectAged(user string, age time.Duration, spec meshsim.ConnectSpec, account string, meets ...meshsim.Action) meshsim.Connection {
	h.t.Helper()
	c := h.issueSpec(spec, account)
	if len(meets) > 0 {
		require.NoError(h.t, h.stack.Mesh.Script(account, meets...))
	}
	h.publishConnected(user, c, time.Now().Add(-age))
	return c
}

// requests returns the refreshes of an account that reached the simulator,
// once none of them is under way.
func (h *harness) requests(account string) []meshsim.Request {
	h.t.Helper()
	require.NoError(h.t, h.stack.Mesh.WaitIdle(h.ctx))
	return h.underWay(account)
}

// underWay returns them at once.
func (h *harness) underWay(account string) []meshsim.Request {
	ledger := h.stack.Mesh.Ledger()
	var out []meshsim.Request
	for _, r := range ledger.Requests {
		if r.Chain > 0 && ledger.Chains[r.Chain-1].HasAccount(account) {
			out = append(out, r)
		}
	}
	return out
}

// chain returns the newest chain of an account.
func (h *harness) chain(account string) meshsim.Chain {
	h.t.Helper()
	c, ok := h.stack.Mesh.Ledger().Chain(account)
	require.True(h.t, ok, "no chain of account %s", account)
	return c
}
