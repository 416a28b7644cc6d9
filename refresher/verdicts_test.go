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
	r.T.Helper()
	for _, user := range users {
		g := r.Connect(w, meshsim.ConnectSpec{BrokerType: broker}, func(g *store.Grant) { g.UserID, g.Refresh = user, endless(g.ConnectedAt) })
		_, err := r.Sim.Inject(meshsim.Fault{AccountID: g.Accounts[0].ID, Action: meshsim.MappedEnvelope("notFound")})
		require.NoError(r.T, err)
		all = append(all, g)
	}
	return all
}

// settleAll has grants tried whenever one comes due, for a time, by workers in turn.
func (r *rig) settleAll(all []*store.Grant, d time.Duration, workers ...*worker) {
	r.T.Helper()
	putOff := map[string]time.Time{} // behind a breaker or a pause
	for n, until := 0, r.Clock.Now().Add(d); ; n++ {
		var next *store.Grant
		var at time.Time
		for _, g := range all {
			g = r.Get(workers[0], g.ID)
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
			r.Clock.Advance(until.Sub(r.Clock.Now()))
			return
		}
		if at.After(r.Clock.Now()) {
			r.Clock.Advance(at.Sub(r.Clock.Now()))
		}
		err := workers[n%len(workers)].HandleDue(r.T.Context(), due(next))
		if later := (*refresher.LaterError)(nil); errors.As(err, &later) {
			putOff[next.ID] = r.Clock.Now().Add(later.After)
			continue
		}
		require.NoError(r.T, err)
	}
}

func (r *rig) states(w *worker, all []*store.Grant) (states []store.State) {
	for _, g := range all {
		states = append(states, r.Get(w, g.ID).State)
	}
	return states
}

var activeThree = []store.State{store.Active, store.Active, store.Active}

// One broker with three grants, all of them refused: whichever workers see it, and
// also after a restart, none is given up until one is refreshed.
func TestManyRefusedInARowHoldVerdicts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Worker("a", served), r.Worker("b", served)
	all := append(r.refusedGrants(a, "coinbase", "one", "two"), r.refusedGrants(a, "Coinbase", "three")...)
	r.settleAll(all, 4*hour, a, b)
	require.Equal(t, activeThree, r.states(a, all))
	held := r.Logs.FilterMessageSnippet("verdicts are held").All()
	require.Len(t, held, 1, "one alert tells")
	restarted := r.Worker("c", served)
	r.settleAll(all, 4*hour, restarted)
	require.Equal(t, activeThree, r.states(a, all))
	require.Len(t, r.Logs.FilterMessageSnippet("verdicts are held").All(), 1)
	for _, user := range []string{"one", "two", "three"} {
		require.NotContains(t, r.LifecycleEvents(user), "token.expired: not_found", user)
	}
	require.Less(t, r.Calls(), 3*8*4+20, "slowly")

	r.Sim.ClearFaults()
	r.settleAll(all[:1], hour, restarted)
	require.Greater(t, r.Get(a, all[0].ID).Version, int64(1))
	require.Len(t, r.Logs.FilterMessageSnippet("no longer held").All(), 1)
	left := all[1:]
	for _, g := range left { // these have really gone
		_, err := r.Sim.Inject(meshsim.Fault{AccountID: g.Accounts[0].ID, Action: meshsim.Failed("gone")})
		require.NoError(t, err)
	}
	r.settleAll(left, 3*hour, a)
	require.Equal(t, []store.State{store.Expired, store.Expired}, r.states(a, left))
}

// What an operator decides counts, until a refresh succeeds.
func TestAnOperatorDecidesAboutVerdicts(t *testing.T) {
	t.Run("where none are held by themselves", func(t *testing.T) {
		r := newRig(t)
		w := r.Worker("a", func(d *refresher.Options) { served(d); d.Hold.Grants = 0 })
		all := r.refusedGrants(w, "coinbase", "one", "two", "three")
		_, err := w.Store.Decide(t.Context(), "coinbase", store.DecidedHold, r.Clock.Now())
		require.NoError(t, err)
		r.settleAll(all, 3*hour, w)
		require.Equal(t, activeThree, r.states(w, all))
	})
	r := newRig(t)
	w := r.Worker("a", served)
	all := r.refusedGrants(w, "coinbase", "one", "two", "three")
	r.settleAll(all, 3*hour, w)
	require.Equal(t, activeThree, r.states(w, all))
	_, err := w.Store.Decide(t.Context(), "coinbase", store.DecidedRelease, r.Clock.Now())
	require.NoError(t, err)
	r.settleAll(all, 3*hour, w)
	require.Equal(t, []store.State{store.Expired, store.Expired, store.Expired}, r.states(w, all))

	single := r.refusedGrants(w, "other", "single")
	_, err = w.Store.Decide(t.Context(), "other", store.DecidedHold, r.Clock.Now())
	require.NoError(t, err)
	good := r.Connect(w, meshsim.ConnectSpec{BrokerType: "other"})
	r.settleAll(append(single, good), 3*hour, w)
	require.Equal(t, store.Active, r.Get(w, single[0].ID).State, "a success does not end what an operator holds")
	_, err = w.Store.Decide(t.Context(), "other", store.DecidedRelease, r.Clock.Now())
	require.NoError(t, err)
	r.settleAll(single, 3*hour, w)
	require.Equal(t, store.Expired, r.Get(w, single[0].ID).State)
}

// Users who leave one by one are no mass: they end, whether others are refreshed
// between them, or there is nobody else.
func TestUsersWhoLeaveOneByOneHoldNothing(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*refresher.Options)
		between time.Duration
		others  bool
	}{
		"over days, and nobody else is there": {served, day, false},
		"within minutes, others between them": {served, time.Minute, true},
		"where nothing is ever held":          {func(d *refresher.Options) { served(d); d.Hold.Grants = 0 }, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w, other := r.Worker("a", c.change), r.Worker("b", c.change)
			var all []*store.Grant
			for n, user := range []string{"one", "two", "three", "four", "five"} {
				all = append(all, r.refusedGrants(w, "coinbase", user)...)
				require.NoError(t, w.HandleDue(t.Context(), due(all[n])))
				if c.others {
					r.Clock.Advance(10 * time.Second)
					require.NoError(t, other.HandleDue(t.Context(), due(r.Connect(w, meshsim.ConnectSpec{}))))
				}
				r.settleAll(all, c.between, w, other)
			}
			if c.others { // they go on being refreshed
				all = append(all, r.Connect(w, meshsim.ConnectSpec{}))
			}
			r.settleAll(all, 3*hour, w, other)
			for _, g := range all[:5] {
				require.Equal(t, store.Expired, r.Get(w, g.ID).State, g.UserID)
			}
			require.Empty(t, r.Logs.FilterMessageSnippet("verdicts are held").All())
		})
	}
}

// Only refusals are held. A grant whose user must act ends with its access token: if it
// were tried again it would be at once, and again, and the user would get a code each time.
func TestAGrantWhoseUserMustActExpiresThoughVerdictsAreHeld(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a", served)
	g := r.Connect(w, meshsim.ConnectSpec{BrokerType: "coinbase"}, func(g *store.Grant) {
		// It was refused once; the next answer said that the user must act.
		g.State, g.Reason, g.Refusals = store.MustAct, events.ReasonMFARequired, &store.Refusals{At: g.ConnectedAt, Times: 1}
		g.Access, g.Refresh = lasting(g.ConnectedAt, hour), endless(g.ConnectedAt)
		g.Accounts[0].ExpiresAt = g.Access.ExpiresAt
	})
	_, err := w.Store.Decide(t.Context(), "coinbase", store.DecidedHold, r.Clock.Now())
	require.NoError(t, err)
	require.True(t, refresher.GivenUp(g))
	r.Clock.Advance(2 * hour)
	require.NoError(t, w.HandleDue(t.Context(), due(g)))
	require.Equal(t, store.Expired, r.Get(w, g.ID).State)
	require.Zero(t, r.Calls())
}

// A grant that was given up before verdicts were held does not expire while they are: it
// is tried again, and refreshed once Mesh takes its token.
func TestAGrantThatWasGivenUpDoesNotExpireWhileVerdictsAreHeld(t *testing.T) {
	for name, life := range map[string]func(time.Time) *store.Lifetime{
		"its access token expires":                    func(now time.Time) *store.Lifetime { return lasting(now, 2*hour) },
		"its access token is reported and has no end": endless,
	} {
		for _, held := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, held %v", name, held), func(t *testing.T) {
				r := newRig(t)
				w := r.Worker("a", served)
				g := r.Connect(w, meshsim.ConnectSpec{BrokerType: "coinbase"}, func(g *store.Grant) {
					g.Access, g.Refresh = life(g.ConnectedAt), endless(g.ConnectedAt)
					g.Accounts[0].ExpiresAt = g.Access.ExpiresAt
				})
				_, err := r.Sim.Inject(meshsim.Fault{AccountID: g.Accounts[0].ID, Action: meshsim.MappedEnvelope("notFound")})
				require.NoError(t, err)
				for g.State == store.Active {
					r.Clock.Advance(max(g.Due.At.Sub(r.Clock.Now()), 0))
					require.NoError(t, w.HandleDue(t.Context(), due(g)))
					g = r.Get(w, g.ID)
				}
				require.True(t, refresher.GivenUp(g))
				if held {
					_, err = w.Store.Decide(t.Context(), "coinbase", store.DecidedHold, r.Clock.Now())
					require.NoError(t, err)
				}
				if g.Access.ExpiresAt == nil {
					g, err = w.EndReported(t.Context(), g)
					require.NoError(t, err)
				}
				r.settleAll([]*store.Grant{g}, 3*hour, w)
				if !held {
					require.Equal(t, store.Expired, r.Get(w, g.ID).State)
					return
				}
				require.Equal(t, store.Active, r.Get(w, g.ID).State)
				require.NotContains(t, r.LifecycleEvents("user"), "token.expired: not_found")
				r.Sim.ClearFaults()
				r.settleAll([]*store.Grant{g}, hour, w)
				require.Zero(t, r.Get(w, g.ID).Attempts)
				require.Nil(t, r.Get(w, g.ID).Refusals)
				r.RequireSoundTokens(w, g.ID)
			})
		}
	}
}
