package refresher_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// refusedGrants connects grants of users of their own at a broker, of which Mesh
// refuses every refresh that has not succeeded by now.
func (r *rig) refusedGrants(w *worker, broker string, users ...string) (all []*store.Grant) {
	r.t.Helper()
	for _, user := range users {
		g := r.connect(w, meshsim.ConnectSpec{BrokerType: broker}, func(g *store.Grant) { g.UserID, g.Refresh = user, endless(g.ConnectedAt) })
		_, err := r.sim.Inject(meshsim.Fault{AccountID: g.Accounts[0].ID, Action: meshsim.MappedEnvelope("notFound")})
		require.NoError(r.t, err)
		all = append(all, g)
	}
	return all
}

// settleAll has grants tried whenever one comes due, for a time, by workers in turn.
func (r *rig) settleAll(all []*store.Grant, d time.Duration, workers ...*worker) {
	r.t.Helper()
	putOff := map[string]time.Time{} // behind a breaker or a pause
	for n, until := 0, r.clock.Now().Add(d); ; n++ {
		var next *store.Grant
		var at time.Time
		for _, g := range all {
			g = r.get(workers[0], g.ID)
			if g.Due == nil {
				continue
			}
			comes := g.Due.At
			if putOff[g.ID].After(comes) {
				comes = putOff[g.ID]
			}
			if next == nil || comes.Before(at) {
				next, at = g, comes
			}
		}
		if next == nil || at.After(until) {
			r.clock.advance(until.Sub(r.clock.Now()))
			return
		}
		if at.After(r.clock.Now()) {
			r.clock.advance(at.Sub(r.clock.Now()))
		}
		err := workers[n%len(workers)].Due(r.t.Context(), due(next))
		if later := (*refresher.LaterError)(nil); errors.As(err, &later) {
			putOff[next.ID] = r.clock.Now().Add(later.After)
			continue
		}
		require.NoError(r.t, err)
	}
}

func (r *rig) states(w *worker, all []*store.Grant) (states []store.State) {
	for _, g := range all {
		states = append(states, r.get(w, g.ID).State)
	}
	return states
}

var activeThree = []store.State{store.Active, store.Active, store.Active}

// One broker with three grants, all of them refused: whichever workers see it, and
// also after a restart, none is given up until one is refreshed.
func TestManyRefusedInARowHoldVerdicts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.worker("a", served), r.worker("b", served)
	all := append(r.refusedGrants(a, "coinbase", "one", "two"), r.refusedGrants(a, "Coinbase", "three")...)
	r.settleAll(all, 4*hour, a, b)
	require.Equal(t, activeThree, r.states(a, all))
	held := r.logs.FilterMessageSnippet("verdicts are held").All()
	require.Len(t, held, 1, "one alert tells")
	restarted := r.worker("c", served)
	r.settleAll(all, 4*hour, restarted)
	require.Equal(t, activeThree, r.states(a, all))
	require.Len(t, r.logs.FilterMessageSnippet("verdicts are held").All(), 1)
	for _, user := range []string{"one", "two", "three"} {
		require.NotContains(t, r.told(user), "token.expired: not_found", user)
	}
	require.Less(t, r.calls(), 3*8*4+20, "slowly")

	r.sim.ClearFaults()
	r.settleAll(all[:1], hour, restarted)
	require.Greater(t, r.get(a, all[0].ID).Version, int64(1))
	require.Len(t, r.logs.FilterMessageSnippet("no longer held").All(), 1)
	left := all[1:]
	for _, g := range left { // these have really gone
		_, err := r.sim.Inject(meshsim.Fault{AccountID: g.Accounts[0].ID, Action: meshsim.Failed("gone")})
		require.NoError(t, err)
	}
	r.settleAll(left, 3*hour, a)
	require.Equal(t, []store.State{store.Expired, store.Expired}, r.states(a, left))
}

// What an operator decides counts, until a refresh succeeds.
func TestAnOperatorDecidesAboutVerdicts(t *testing.T) {
	t.Run("where none are held by themselves", func(t *testing.T) {
		r := newRig(t)
		w := r.worker("a", func(d *refresher.Deps) { served(d); d.Hold.Grants = 0 })
		all := r.refusedGrants(w, "coinbase", "one", "two", "three")
		_, err := w.store.Decide(t.Context(), "coinbase", store.DecidedHold, r.clock.Now())
		require.NoError(t, err)
		r.settleAll(all, 3*hour, w)
		require.Equal(t, activeThree, r.states(w, all))
	})
	r := newRig(t)
	w := r.worker("a", served)
	all := r.refusedGrants(w, "coinbase", "one", "two", "three")
	r.settleAll(all, 3*hour, w)
	require.Equal(t, activeThree, r.states(w, all))
	_, err := w.store.Decide(t.Context(), "coinbase", store.DecidedRelease, r.clock.Now())
	require.NoError(t, err)
	r.settleAll(all, 3*hour, w)
	require.Equal(t, []store.State{store.Expired, store.Expired, store.Expired}, r.states(w, all))

	single := r.refusedGrants(w, "other", "single")
	_, err = w.store.Decide(t.Context(), "other", store.DecidedHold, r.clock.Now())
	require.NoError(t, err)
	good := r.connect(w, meshsim.ConnectSpec{BrokerType: "other"})
	r.settleAll(append(single, good), 3*hour, w)
	require.Equal(t, store.Active, r.get(w, single[0].ID).State, "a success does not end what an operator holds")
	_, err = w.store.Decide(t.Context(), "other", store.DecidedRelease, r.clock.Now())
	require.NoError(t, err)
	r.settleAll(single, 3*hour, w)
	require.Equal(t, store.Expired, r.get(w, single[0].ID).State)
}

// Users who leave one by one are no mass: they end, whether others are refreshed
// between them, or there is nobody else.
func TestUsersWhoLeaveOneByOneHoldNothing(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*refresher.Deps)
		between time.Duration
		others  bool
	}{
		"over days, and nobody else is there": {served, day, false},
		"within minutes, others between them": {served, time.Minute, true},
		"where nothing is ever held":          {func(d *refresher.Deps) { served(d); d.Hold.Grants = 0 }, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w, other := r.worker("a", c.change), r.worker("b", c.change)
			var all []*store.Grant
			for n, user := range []string{"one", "two", "three", "four", "five"} {
				all = append(all, r.refusedGrants(w, "coinbase", user)...)
				require.NoError(t, w.Due(t.Context(), due(all[n])))
				if c.others {
					r.clock.advance(10 * time.Second)
					require.NoError(t, other.Due(t.Context(), due(r.connect(w, meshsim.ConnectSpec{}))))
				}
				r.settleAll(all, c.between, w, other)
			}
			if c.others { // they go on being refreshed
				all = append(all, r.connect(w, meshsim.ConnectSpec{}))
			}
			r.settleAll(all, 3*hour, w, other)
			for _, g := range all[:5] {
				require.Equal(t, store.Expired, r.get(w, g.ID).State, g.UserID)
			}
			require.Empty(t, r.logs.FilterMessageSnippet("verdicts are held").All())
		})
	}
}

// Only refusals are held. A grant whose user must act ends with its access token: if it
// were tried again it would be at once, and again, and the user would get a code each time.
func TestAGrantWhoseUserMustActExpiresThoughVerdictsAreHeld(t *testing.T) {
	r := newRig(t)
	w := r.worker("a", served)
	g := r.connect(w, meshsim.ConnectSpec{BrokerType: "coinbase"}, func(g *store.Grant) {
		// It was refused once; the next answer said that the user must act.
		g.State, g.Reason, g.Refusals = store.MustAct, events.ReasonMFARequired, &store.Refusals{At: g.ConnectedAt, Times: 1}
		g.Access, g.Refresh = lasting(g.ConnectedAt, hour), endless(g.ConnectedAt)
		g.Accounts[0].ExpiresAt = g.Access.ExpiresAt
	})
	_, err := w.store.Decide(t.Context(), "coinbase", store.DecidedHold, r.clock.Now())
	require.NoError(t, err)
	require.True(t, refresher.GivenUp(g))
	r.clock.advance(2 * hour)
	require.NoError(t, w.Due(t.Context(), due(g)))
	require.Equal(t, store.Expired, r.get(w, g.ID).State)
	require.Zero(t, r.calls())
}

// A grant that was given up before verdicts were held does not expire while they are: it
// is tried again, and refreshed once Mesh takes its token.
func TestAGrantThatWasGivenUpDoesNotExpireWhileVerdictsAreHeld(t *testing.T) {
	for name, life := range map[string]func(time.Time) *store.Life{
		"its access token expires":                    func(now time.Time) *store.Life { return lasting(now, 2*hour) },
		"its access token is reported and has no end": endless,
	} {
		for _, held := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, held %v", name, held), func(t *testing.T) {
				r := newRig(t)
				w := r.worker("a", served)
				g := r.connect(w, meshsim.ConnectSpec{BrokerType: "coinbase"}, func(g *store.Grant) {
					g.Access, g.Refresh = life(g.ConnectedAt), endless(g.ConnectedAt)
					g.Accounts[0].ExpiresAt = g.Access.ExpiresAt
				})
				_, err := r.sim.Inject(meshsim.Fault{AccountID: g.Accounts[0].ID, Action: meshsim.MappedEnvelope("notFound")})
				require.NoError(t, err)
				for g.State == store.Active {
					r.clock.advance(max(g.Due.At.Sub(r.clock.Now()), 0))
					require.NoError(t, w.Due(t.Context(), due(g)))
					g = r.get(w, g.ID)
				}
				require.True(t, refresher.GivenUp(g))
				if held {
					_, err = w.store.Decide(t.Context(), "coinbase", store.DecidedHold, r.clock.Now())
					require.NoError(t, err)
				}
				if g.Access.ExpiresAt == nil {
					g, err = w.EndReported(t.Context(), g)
					require.NoError(t, err)
				}
				r.settleAll([]*store.Grant{g}, 3*hour, w)
				if !held {
					require.Equal(t, store.Expired, r.get(w, g.ID).State)
					return
				}
				require.Equal(t, store.Active, r.get(w, g.ID).State)
				require.NotContains(t, r.told("user"), "token.expired: not_found")
				r.sim.ClearFaults()
				r.settleAll([]*store.Grant{g}, hour, w)
				require.Zero(t, r.get(w, g.ID).Attempts)
				require.Nil(t, r.get(w, g.ID).Refusals)
				r.soundTokens(w, g.ID)
			})
		}
	}
}
