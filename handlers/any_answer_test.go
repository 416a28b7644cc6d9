package handlers_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim/meshsimtest"
	"github.com/latchkey/latchkey/refresher/refreshertest"
	"github.com/latchkey/latchkey/store"
)

// TestNoTokenOfAnAnswerIsLostByARefresh: every token of any answer is kept, from the due
// message to the database and the dead letters, for grants with accounts that answers name, or do not,
// and for those whose accounts are not known.
func TestNoTokenOfAnAnswerIsLostByARefresh(t *testing.T) {
	r := newRig(t)
	server := meshsimtest.NewServer(t)
	r.MeshURL = server.URL
	w := r.Worker("a")
	generator := rapid.Custom(meshsimtest.AnyAnswer)
	for n := range 40 {
		// What one answer does to its broker, and to all, is no matter here.
		g := r.Connect(w, meshsim.ConnectSpec{BrokerType: fmt.Sprint("broker-", n)}, func(g *store.Grant) {
			g.UserID = fmt.Sprint("user-", n)
			for _, id := range [][]string{{}, {"one"}, {"one", "two"}}[n%3] {
				g.Accounts = append(g.Accounts, store.Account{ID: id, ExpiresAt: g.Access.ExpiresAt})
			}
			if n%5 == 0 {
				g.Accounts = nil
			}
		})
		given := generator.Example(n)
		if given.Status == 401 || given.Status == 403 || given.Status == 429 {
			given.Status = 500
		}
		server.Set(given.Response)
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		g = r.Get(w, g.ID)
		require.False(t, g.HasLeftovers)
		set, err := w.Tokens(t.Context(), g)
		require.NoError(t, err)
		refreshertest.RequireKept(t, given, refreshertest.TokensOf(set), r.leftovers(w, g)...)
	}
}
