package refresher_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// otherwise are dialects of behaviour that tests of their own are about: they take a
// code, a token of another kind, or more than one grant.
var otherwise = []string{"mfa", "mfaAskedAgain", "tradeTokenRequired", "managedTokens", "accessTokenRequired", "refreshTokenEach"}

// Whatever the words in which new tokens are told, a grant keeps its accounts, holds
// the institution's current tokens, and presents none twice.
func TestEveryDialectOfTokensIsUnderstood(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range meshsim.DialectNames(meshsim.OnTokens, meshsim.OnRefresh, meshsim.OnBehaviour) {
		if slices.Contains(otherwise, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := r.Worker(name) // one whose limits no other dialect has touched
			accounts := []meshsim.Account{{ID: name + "-1", Name: "One"}, {ID: name + "-2", Name: "Two"}}
			i := meshsim.DefaultInstitution(name)
			i.Dialects = []string{name}
			g := r.Connect(w, meshsim.ConnectSpec{BrokerType: name, Accounts: accounts, Institution: &i})
			for range 4 {
				g = r.Get(w, g.ID)
				require.NotNil(t, g.Due, "state %s, %s", g.State, g.Reason)
				if wait := g.Due.At.Sub(r.Clock.Now()); wait > 0 {
					r.Clock.Advance(wait)
				}
				require.NoError(t, w.HandleDue(t.Context(), due(g)))
			}
			require.NoError(t, r.Sim.WaitIdle(t.Context()))
			g = r.Get(w, g.ID)
			require.Equal(t, store.Active, g.State, g.Reason)
			require.GreaterOrEqual(t, g.Version, int64(3), "it is not refreshed")
			set, err := w.Tokens(t.Context(), g)
			require.NoError(t, err)
			l := r.Sim.Ledger()
			require.False(t, slices.ContainsFunc(l.DoubleSpends(), func(u meshsim.Reuse) bool { return u.Request.BrokerType == name }), "a refresh token was presented twice")
			valid, why := l.RefreshTokenState(set.RefreshToken)
			require.True(t, valid, why)
			require.Len(t, g.Accounts, 2)
			for _, a := range accounts {
				valid, why := l.AccessTokenState(set.Account(a.ID).AccessToken)
				require.True(t, valid || name == "deprecatedFields" && a.ID != accounts[0].ID, "%s: %s", a.ID, why)
			}
		})
	}
}

// In whatever words a refresh token is refused, it is told from what says nothing
// about it.
func TestEveryDialectOfRefusalsIsUnderstood(t *testing.T) {
	const passing = events.Reason("")
	want := map[string]events.Reason{
		"unauthorizedToken": events.ReasonRejected, "unauthorized": events.ReasonRejected, "unauthorizedEmpty": events.ReasonRejected,
		"refusedNotFound": events.ReasonNotFound, "refusedPermissionDenied": passing,
	}
	r := newRig(t)
	for _, name := range meshsim.DialectNames(meshsim.OnRefusal) {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, want, name)
			w := r.Worker(name, served)
			i := meshsim.DefaultInstitution(name)
			i.Dialects = []string{name}
			g := r.Connect(w, meshsim.ConnectSpec{BrokerType: name, Institution: &i}, func(g *store.Grant) { g.UserID = name })
			require.NoError(t, r.Sim.Kill(g.Accounts[0].ID))
			r.settleAll([]*store.Grant{g}, 3*hour, w)
			if want[name] == passing {
				require.Equal(t, store.Active, r.Get(w, g.ID).State)
				require.Equal(t, []string{"token.expiring: refresh_failing"}, r.LifecycleEvents(name))
				return
			}
			require.Equal(t, store.Expired, r.Get(w, g.ID).State)
			require.Equal(t, []string{"token.expiring: " + string(want[name]), "token.expired: " + string(want[name])}, r.LifecycleEvents(name))
		})
	}
}

// Whatever answers in place of an institution for some hours costs none of its
// grants, and holds up no other institution.
func TestWhateverAnswersInsteadCostsNoGrant(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range meshsim.DialectNames(meshsim.InsteadOfRefresh) {
		t.Run(name, func(t *testing.T) {
			w := r.Worker(name, served, func(d *refresher.Options) { d.Limits.BreakerOpen = hour })
			var hidden []*store.Grant
			for n := range 3 {
				hidden = append(hidden, r.Connect(w, meshsim.ConnectSpec{BrokerType: name}, func(g *store.Grant) { g.UserID = fmt.Sprint(name, n) }))
			}
			other := r.Connect(w, meshsim.ConnectSpec{BrokerType: name + "-other"}, func(g *store.Grant) { g.UserID = name + "-other" })
			require.NoError(t, r.Sim.Speak(name, name))
			before := r.Calls()
			r.settleAll(append(hidden, other), 3*hour, w)
			require.Less(t, r.Calls()-before, 3*3*20, "not hammered")
			require.GreaterOrEqual(t, r.Get(w, other.ID).Version, int64(3), "another institution is not held up")
			require.Equal(t, activeThree, r.states(w, hidden))

			require.NoError(t, r.Sim.Speak(name))
			w = r.Worker(name+" later", served) // whose breaker is closed
			waits := func(g *store.Grant) bool { return r.Get(w, g.ID).Version == 1 }
			for hours := 0; slices.ContainsFunc(hidden, waits); hours++ {
				require.Less(t, hours, 24)
				r.settleAll(hidden, hour, w)
			}
			require.Equal(t, activeThree, r.states(w, hidden))
		})
	}
}
