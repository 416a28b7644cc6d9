package refresher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/refresher/refreshertest"
	"github.com/latchkey/latchkey/store"
)

// endlessGrant connects a grant for which nothing is due by itself.
func (r *rig) endlessGrant(w *worker, account, broker string) *store.Grant {
	r.T.Helper()
	spec, change := refreshertest.WithLifetime(0)
	spec.BrokerType, spec.Accounts = broker, []meshsim.Account{{ID: account}}
	g := r.Connect(w, spec, change)
	require.Nil(r.T, r.Get(w, g.ID).Due)
	return g
}

func TestWhatNothingEndsIsRefreshedOnDemand(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	page := r.endlessGrant(w, "by the page", "coinbase")
	require.Empty(t, refresher.RefreshBlocked(page, r.Clock.Now()))
	after, err := w.RefreshNow(t.Context(), page)
	require.NoError(t, err)
	require.Equal(t, int64(2), after.Version)
	require.Nil(t, r.Get(w, page.ID).Due, "nothing is due again")

	cli := r.endlessGrant(w, "by the command line", "coinbase")
	require.NoError(t, w.Dispatcher.RefreshNow(t.Context(), cli))
	require.ErrorIs(t, w.Dispatcher.RefreshNow(t.Context(), cli), store.ErrConflict, "it is due by now")
	require.NoError(t, w.Dispatcher.RefreshNow(t.Context(), r.Get(w, cli.ID)))
	r.Eventually(func() bool { return len(r.dueMessages(cli.ID)) > 0 }, "the message does not come")
	require.NoError(t, w.HandleDue(t.Context(), r.dueMessages(cli.ID)[0]))
	require.Equal(t, int64(2), r.Get(w, cli.ID).Version)
	require.Nil(t, r.Get(w, cli.ID).Due)
	r.RequireSoundTokens(w, cli.ID)

	// Whoever asked may have ended before the message was sent.
	lost := r.endlessGrant(w, "whose message is lost", "coinbase")
	lost.Due = &store.Due{At: r.Clock.Now(), Action: store.Refresh}
	require.NoError(t, w.Store.Save(t.Context(), lost))
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.NotNil(t, r.schedule(lost.ID))
}

// A worker may die while it refreshes a grant on demand. Another takes over then, though
// nothing of the grant is due, or only later.
func TestARefreshOnDemandIsTakenOver(t *testing.T) {
	for name, life := range refreshertest.Lifetimes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			a, b := r.Worker("a"), r.Worker("b")
			spec, change := refreshertest.WithLifetime(life)
			spec.Institution.RevokeOldAccess, spec.Institution.Grace, spec.Institution.GraceMode = false, hour, meshsim.GraceRotate
			g := r.Connect(a, spec, change)
			r.Block("one")
			first := make(chan error, 1)
			go func() {
				_, err := a.RefreshNow(t.Context(), g)
				first <- err
			}()
			r.Wait(r.Blocked)
			r.Clock.Advance(2 * time.Minute)
			require.NoError(t, b.Reconciler.Pass(t.Context()))
			r.Eventually(func() bool { return len(r.dueMessages(g.ID)) > 0 }, "nobody takes over")
			require.NoError(t, b.HandleDue(t.Context(), r.dueMessages(g.ID)[0]))
			after := r.Get(b, g.ID)
			require.Equal(t, int64(2), after.Version)
			require.Equal(t, 2, r.Calls())
			r.Unblock <- struct{}{}
			require.NoError(t, r.Result(first))
			require.Equal(t, int64(2), r.Get(b, g.ID).Version, "it comes late")
			require.Equal(t, life == 0, after.Due == nil)
		})
	}
	t.Run("what is given back is due when it was", func(t *testing.T) {
		r := newRig(t)
		late := r.Worker("late", func(d *refresher.Options) { d.Lease, d.CallAndSave = time.Minute, time.Hour })
		spec, change := refreshertest.WithLifetime(hour)
		g := r.Connect(late, spec, change)
		_, err := late.RefreshNow(t.Context(), g)
		var later *refresher.LaterError
		require.ErrorAs(t, err, &later)
		require.Zero(t, r.Calls())
		require.Equal(t, g.Due.At.UTC(), r.Get(late, g.ID).Due.At.UTC())
	})
}

func TestRefreshTokensOfABrokerAreKeptAlive(t *testing.T) {
	r := newRig(t)
	const alive = 10 * day
	plain := r.Worker("before the setting")
	keeper := r.Worker("after", refreshertest.PlanBy(func(c *config.Config) {
		c.Refresh.Brokers = map[string]config.BrokerPolicy{"coinbase": {KeepAlive: alive}}
	}))
	idle, other := r.endlessGrant(plain, "idle", "CoinBase"), r.endlessGrant(plain, "other", "kraken")
	late := r.Connect(plain, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "late"}}}, func(g *store.Grant) {
		g.Access, g.Accounts[0].ExpiresAt = endless(g.ConnectedAt), nil
		g.Due = plain.Settler.Policy.Next(g) // a renewal, months ahead
	})
	soon := r.Connect(plain, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "soon"}}}, func(g *store.Grant) { g.Due = plain.Settler.Policy.Next(g) })
	require.NoError(t, keeper.Reconciler.Pass(t.Context()))
	for _, id := range []string{idle.ID, late.ID} {
		g := r.Get(keeper, id)
		require.Equal(t, store.Refresh, g.Due.Action)
		require.WithinRange(t, g.Due.At, r.Clock.Now().Add(alive*9/10), r.Clock.Now().Add(alive))
	}
	require.Nil(t, r.Get(keeper, other.ID).Due)
	require.Equal(t, soon.Due.At, r.Get(keeper, soon.ID).Due.At)

	// From then on each refresh brings the next.
	for version := int64(2); version < 5; version++ {
		g := r.Get(keeper, idle.ID)
		r.Clock.Advance(g.Due.At.Sub(r.Clock.Now()))
		require.NoError(t, keeper.HandleDue(t.Context(), due(g)))
		g = r.Get(keeper, idle.ID)
		require.Equal(t, version, g.Version)
		require.WithinRange(t, g.Due.At, r.Clock.Now().Add(alive*9/10), r.Clock.Now().Add(alive))
		require.NoError(t, keeper.Reconciler.Pass(t.Context()))
		require.Equal(t, g.Due.At, r.Get(keeper, idle.ID).Due.At, "every pass derives the same")
	}
	r.RequireSoundTokens(keeper, idle.ID)

	// One that was long idle when the setting came is refreshed at once, not in the past.
	r.Clock.Advance(100 * day)
	old := r.endlessGrant(plain, "old", "coinbase")
	require.NoError(t, plain.Store.Delete(t.Context(), old))
	old.ConnectedAt, old.Access.Since, old.Version = old.ConnectedAt.Add(-50*day), old.Access.Since.Add(-50*day), 1
	require.NoError(t, plain.Store.Insert(t.Context(), old))
	require.NoError(t, keeper.Reconciler.Pass(t.Context()))
	require.Equal(t, r.Clock.Now(), r.Get(keeper, old.ID).Due.At)
}
