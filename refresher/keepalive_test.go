package refresher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// endlessGrant connects a grant for which nothing is due by itself.
func (r *rig) endlessGrant(w *worker, account, broker string) *store.Grant {
	r.t.Helper()
	spec, change := withLife(0)
	spec.BrokerType, spec.Accounts = broker, []meshsim.Account{{ID: account}}
	g := r.connect(w, spec, change)
	require.Nil(r.t, r.get(w, g.ID).Due)
	return g
}

func TestWhatNothingEndsIsRefreshedOnDemand(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	page := r.endlessGrant(w, "by the page", "coinbase")
	require.Empty(t, refresher.RefreshBlocked(page, r.clock.Now()))
	after, err := w.Now(t.Context(), page)
	require.NoError(t, err)
	require.Equal(t, int64(2), after.Version)
	require.Nil(t, r.get(w, page.ID).Due, "nothing is due again")

	cli := r.endlessGrant(w, "by the command line", "coinbase")
	require.NoError(t, w.dispatcher.RefreshNow(t.Context(), cli))
	require.ErrorIs(t, w.dispatcher.RefreshNow(t.Context(), cli), store.ErrConflict, "it is due by now")
	require.NoError(t, w.dispatcher.RefreshNow(t.Context(), r.get(w, cli.ID)))
	r.eventually(func() bool { return len(r.fired(cli.ID)) > 0 }, "the message does not come")
	require.NoError(t, w.Due(t.Context(), r.fired(cli.ID)[0]))
	require.Equal(t, int64(2), r.get(w, cli.ID).Version)
	require.Nil(t, r.get(w, cli.ID).Due)
	r.soundTokens(w, cli.ID)

	// Whoever asked may have ended before the message was sent.
	lost := r.endlessGrant(w, "whose message is lost", "coinbase")
	lost.Due = &store.Due{At: r.clock.Now(), Action: store.Refresh}
	require.NoError(t, w.store.Save(t.Context(), lost))
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.NotNil(t, r.schedule(lost.ID))
}

// A worker may die while it refreshes a grant on demand. Another takes over then, though
// nothing of the grant is due, or only later.
func TestARefreshOnDemandIsTakenOver(t *testing.T) {
	for name, life := range lifetimes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			a, b := r.worker("a"), r.worker("b")
			spec, change := withLife(life)
			spec.Institution.RevokeOldAccess, spec.Institution.Grace, spec.Institution.GraceMode = false, hour, meshsim.GraceRotate
			g := r.connect(a, spec, change)
			r.hold("one")
			first := make(chan error, 1)
			go func() {
				_, err := a.Now(t.Context(), g)
				first <- err
			}()
			r.wait(r.held)
			r.clock.advance(2 * time.Minute)
			require.NoError(t, b.reconciler.Pass(t.Context()))
			r.eventually(func() bool { return len(r.fired(g.ID)) > 0 }, "nobody takes over")
			require.NoError(t, b.Due(t.Context(), r.fired(g.ID)[0]))
			after := r.get(b, g.ID)
			require.Equal(t, int64(2), after.Version)
			require.Equal(t, 2, r.calls())
			r.let <- struct{}{}
			require.NoError(t, r.result(first))
			require.Equal(t, int64(2), r.get(b, g.ID).Version, "it comes late")
			require.Equal(t, life == 0, after.Due == nil)
		})
	}
	t.Run("what is given back is due when it was", func(t *testing.T) {
		r := newRig(t)
		late := r.worker("late", func(d *refresher.Deps) { d.Lease, d.CallAndSave = time.Minute, time.Hour })
		spec, change := withLife(hour)
		g := r.connect(late, spec, change)
		_, err := late.Now(t.Context(), g)
		var later *refresher.LaterError
		require.ErrorAs(t, err, &later)
		require.Zero(t, r.calls())
		require.Equal(t, g.Due.At.UTC(), r.get(late, g.ID).Due.At.UTC())
	})
}

func TestRefreshTokensOfABrokerAreKeptAlive(t *testing.T) {
	r := newRig(t)
	const alive = 10 * day
	plain := r.worker("before the setting")
	keeper := r.worker("after", func(d *refresher.Deps) {
		d.Settler.Policy.Brokers = map[string]config.BrokerPolicy{"coinbase": {KeepAlive: alive}}
	})
	idle, other := r.endlessGrant(plain, "idle", "CoinBase"), r.endlessGrant(plain, "other", "kraken")
	late := r.connect(plain, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "late"}}}, func(g *store.Grant) {
		g.Access, g.Accounts[0].ExpiresAt = endless(g.ConnectedAt), nil
		g.Due = plain.settler.Policy.Next(g) // a renewal, months ahead
	})
	soon := r.connect(plain, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "soon"}}}, func(g *store.Grant) { g.Due = plain.settler.Policy.Next(g) })
	require.NoError(t, keeper.reconciler.Pass(t.Context()))
	for _, id := range []string{idle.ID, late.ID} {
		g := r.get(keeper, id)
		require.Equal(t, store.Refresh, g.Due.Action)
		require.WithinRange(t, g.Due.At, r.clock.Now().Add(alive*9/10), r.clock.Now().Add(alive))
	}
	require.Nil(t, r.get(keeper, other.ID).Due)
	require.Equal(t, soon.Due.At, r.get(keeper, soon.ID).Due.At)

	// From then on each refresh brings the next.
	for version := int64(2); version < 5; version++ {
		g := r.get(keeper, idle.ID)
		r.clock.advance(g.Due.At.Sub(r.clock.Now()))
		require.NoError(t, keeper.Due(t.Context(), due(g)))
		g = r.get(keeper, idle.ID)
		require.Equal(t, version, g.Version)
		require.WithinRange(t, g.Due.At, r.clock.Now().Add(alive*9/10), r.clock.Now().Add(alive))
		require.NoError(t, keeper.reconciler.Pass(t.Context()))
		require.Equal(t, g.Due.At, r.get(keeper, idle.ID).Due.At, "every pass derives the same")
	}
	r.soundTokens(keeper, idle.ID)

	// One that was long idle when the setting came is refreshed at once, not in the past.
	r.clock.advance(100 * day)
	old := r.endlessGrant(plain, "old", "coinbase")
	require.NoError(t, plain.store.Delete(t.Context(), old))
	old.ConnectedAt, old.Access.Since, old.Version = old.ConnectedAt.Add(-50*day), old.Access.Since.Add(-50*day), 1
	require.NoError(t, plain.store.Insert(t.Context(), old))
	require.NoError(t, keeper.reconciler.Pass(t.Context()))
	require.Equal(t, r.clock.Now(), r.get(keeper, old.ID).Due.At)
}
