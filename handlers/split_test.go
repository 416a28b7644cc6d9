package handlers_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// splitting is a login whose first refresh gives each account a refresh token of its
// own.
func (r *rig) splitting(accounts ...string) *meshsim.Connection {
	r.T.Helper()
	i := meshsim.DefaultInstitution("coinbase")
	i.Dialects = []string{"refreshTokenEach"}
	spec := meshsim.ConnectSpec{BrokerType: "coinbase", Institution: &i}
	for _, id := range accounts {
		spec.Accounts = append(spec.Accounts, meshsim.Account{ID: id})
	}
	connected, err := r.Sim.Connect(spec)
	require.NoError(r.T, err)
	return &connected
}

// resolving is a worker whose refreshes sort out accounts.
func (r *rig) resolving(id string) (*worker, *handlers.Connector) {
	var c *handlers.Connector
	w := r.Worker(id, func(d *refresher.Options) {
		d.Resolve = func(ctx context.Context, user string) error { return c.Resolve(ctx, user) }
	})
	c = r.connector(w)
	return w, c
}

// requireSplit checks that each account stands in a grant of its own, with the tokens
// that the institution takes, and that each of these grants is refreshed.
func (r *rig) requireSplit(w *worker, user string, accounts ...string) {
	r.T.Helper()
	all := r.live(w, user)
	require.Len(r.T, all, len(accounts))
	var ids []string
	for _, g := range all {
		require.Len(r.T, g.Accounts, 1)
		require.False(r.T, g.HasSeparateRefreshTokens)
		ids = append(ids, g.Accounts[0].ID)
		set, err := w.Tokens(r.T.Context(), g)
		require.NoError(r.T, err)
		require.Len(r.T, set.Accounts, 1)
		r.refresh(w, g)
		r.RequireSoundTokens(w, g.ID)
	}
	require.ElementsMatch(r.T, accounts, ids)
	require.Empty(r.T, r.Sim.Ledger().ReplacedPresented())
}

// Accounts to which a refresh brings refresh tokens of their own are grants of their
// own from then on, with their own events, and a connect published again changes that
// no more.
func TestAccountsWithRefreshTokensOfTheirOwnAreSplitOff(t *testing.T) {
	r := newRig(t)
	w, c := r.resolving("a")
	login := r.splitting("one", "two", "three")
	at := r.Clock.Now()
	require.NoError(t, c.Connect(t.Context(), wrapped("u", login, 0, 1, 2), at))
	g := r.live(w, "u")[0]
	r.Clock.Advance(time.Second)
	after := r.refresh(w, g)
	require.True(t, after.HasSeparateRefreshTokens, "as the answer was stored")
	all := r.live(w, "u")
	require.Len(t, all, 3)
	stored := map[string][]string{} // accounts by grant
	for _, m := range r.Messages(r.Subjects.LifecycleStream(), ">") {
		e, err := events.DecodeLifecycle(m.Data)
		require.NoError(t, err)
		if e.Kind == events.TokenStored && e.Data.Reason == events.ReasonSplit {
			for _, a := range e.Data.Accounts {
				stored[e.Data.GrantID] = append(stored[e.Data.GrantID], a.AccountID)
			}
		}
	}
	require.Equal(t, []string{"one"}, stored[g.ID], "it tells what is left of it")
	for _, part := range all {
		require.Equal(t, part.AccountIDs(), stored[part.ID])
		require.Equal(t, at, part.ConnectedAt, "the user gave it then")
		set, err := w.Tokens(t.Context(), part)
		require.NoError(t, err)
		require.False(t, set.Accounts[0].AccessToken.Empty())
		require.NotNil(t, part.Due)
	}
	r.requireSplit(w, "u", "one", "two", "three")
	for _, again := range []events.Connected{wrapped("u", login, 0, 1, 2), wrapped("u", login, 1), wrapped("u", login, 2, 1), delayed("u", login.Accounts[0].RefreshToken)} {
		for _, at := range []time.Time{at, r.Clock.Now()} {
			r.Clock.Advance(time.Second)
			require.NoError(t, c.Connect(t.Context(), again, at))
			r.requireSplit(w, "u", "one", "two", "three")
		}
	}
	require.NoError(t, c.Disconnect(t.Context(), store.Scope{User: "u", Broker: "coinbase", Account: "two"}, r.Clock.Now()))
	r.requireSplit(w, "u", "one", "three")
}

// A worker may die after any write of a split: the accounts and their refresh tokens
// stay, and no two grants present one.
func TestASplitMayEndAnywhere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.Worker("a") // its refreshes sort out nothing
	c := r.connector(w)
	other, _ := r.resolving("b")
	for _, inBetween := range []string{"nothing", "the new grant is refreshed", "the old grant is refreshed", "a disconnect"} {
		for writes := int32(0); ; writes++ {
			user := fmt.Sprint(strings.ReplaceAll(inBetween, " ", "-"), "-", writes)
			accounts := []string{user + "-one", user + "-two"}
			require.NoError(t, c.Connect(t.Context(), wrapped(user, r.splitting(accounts...), 0, 1), r.Clock.Now()))
			r.Clock.Advance(time.Second)
			g := r.refresh(w, r.live(w, user)[0])
			require.True(t, g.HasSeparateRefreshTokens)
			var done atomic.Int32
			r.DB.Proxy().FailWrites(13, func(string, string) bool { return done.Add(1) > writes })
			err := c.Resolve(t.Context(), user)
			r.WaitSent()
			r.DB.Proxy().FailWrites(0, nil)
			for _, g := range r.live(w, user) {
				part := g.Split > 0
				if inBetween == "the new grant is refreshed" && part || inBetween == "the old grant is refreshed" && !part {
					r.refresh(w, g)
				}
			}
			want := accounts
			if inBetween == "a disconnect" {
				r.Clock.Advance(time.Second)
				require.NoError(t, c.Disconnect(t.Context(), store.Scope{User: user, Broker: "coinbase", Account: accounts[0]}, r.Clock.Now()))
				want = accounts[1:]
			}
			r.Clock.Advance(time.Second)
			for range 2 { // the first may find something changed in between
				require.NoError(t, other.Reconciler.Pass(t.Context()))
			}
			r.requireSplit(other, user, want...)
			require.NotContains(t, r.LifecycleEvents(user), "token.stored: replaced")
			for _, g := range r.live(w, user) {
				require.Nil(t, g.AccountsDue, "nothing is left to do")
			}
			if err == nil {
				require.Positive(t, writes)
				break
			}
		}
	}
}

// A disconnect that is remembered while accounts are split off, and sees none of the
// new grant, still finds it.
func TestADisconnectDuringASplit(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	c := r.connector(w)
	other, d := r.resolving("b")
	require.NoError(t, c.Connect(t.Context(), wrapped("u", r.splitting("one", "two"), 0, 1), r.Clock.Now()))
	r.Clock.Advance(time.Second)
	require.True(t, r.refresh(w, r.live(w, "u")[0]).HasSeparateRefreshTokens)
	var phase atomic.Int32
	r.DB.Proxy().FailWrites(13, func(command, collection string) bool {
		if command == "insert" && collection == "grants" && phase.CompareAndSwap(0, 1) {
			require.NoError(t, d.Disconnect(context.Background(), store.Scope{User: "u", Broker: "coinbase", Account: "two"}, r.Clock.Now()))
			phase.Store(2)
		}
		return phase.Load() == 2 && command == "update" // the worker dies
	})
	require.Error(t, c.Resolve(t.Context(), "u"))
	r.WaitSent()
	r.DB.Proxy().FailWrites(0, nil)
	require.True(t, slices.ContainsFunc(r.live(w, "u"), func(g *store.Grant) bool { return g.Split > 0 }))
	r.Clock.Advance(time.Second)
	for range 2 {
		require.NoError(t, other.Reconciler.Pass(t.Context()))
	}
	r.requireSplit(other, "u", "one")
}

// Accounts that an answer names only when it is recovered are sorted out as well: one
// that was disconnected stays out.
func TestAccountsOfARecoveredAnswerAreSortedOut(t *testing.T) {
	r := newRig(t)
	w, c := r.resolving("a")
	login := r.login("one", "two")
	require.NoError(t, c.Connect(t.Context(), delayed("u", login.Accounts[0].RefreshToken), r.Clock.Now()))
	r.Clock.Advance(time.Second)
	require.NoError(t, c.Disconnect(t.Context(), store.Scope{User: "u", Broker: "coinbase", Account: "two"}, r.Clock.Now()))
	g := r.live(w, "u")[0]
	r.FailWrites(true)
	_, err := w.RefreshNow(context.Background(), g)
	require.NoError(t, err)
	r.FailWrites(false)
	entries := r.Messages(r.Subjects.RecoveryStream(), r.Subjects.Recovery(g.ID))
	require.Len(t, entries, 1)
	require.NoError(t, w.Recover(t.Context(), entries[0].Data))
	require.Equal(t, []string{"one"}, r.Get(w, g.ID).AccountIDs())
}
