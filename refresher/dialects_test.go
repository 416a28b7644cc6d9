package refresher_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/store"
)

// otherwise are dialects of behaviour that tests of their own are about: they take a
// code, a token of another kind, or more than one grant.
var otherwise = []string{"mfa", "mfaAskedAgain", "tradeTokenRequired", "managedTokens", "accessTokenRequired", "refreshTokenEach"}

// Whatever the words in which new tokens are told, a grant keeps its accounts, holds
// the institution's current tokens, and presents none twice.
func TestEveryDialectOfTokensIsUnderstood(t *testing.T) {
	r := newRig(t)
	for _, name := range meshsim.DialectNames(meshsim.OnTokens, meshsim.OnRefresh, meshsim.OnBehaviour) {
		if slices.Contains(otherwise, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := r.worker(name) // one whose limits no other dialect has touched
			accounts := []meshsim.Account{{ID: name + "-1", Name: "One"}, {ID: name + "-2", Name: "Two"}}
			i := meshsim.DefaultInstitution(name)
			i.Dialects = []string{name}
			g := r.connect(w, meshsim.ConnectSpec{BrokerType: name, Accounts: accounts, Institution: &i})
			for range 4 {
				g = r.get(w, g.ID)
				require.NotNil(t, g.Due, "state %s, %s", g.State, g.Reason)
				if wait := g.Due.At.Sub(r.clock.Now()); wait > 0 {
					r.clock.advance(wait)
				}
				require.NoError(t, w.Due(t.Context(), due(g)))
			}
			require.NoError(t, r.sim.Settle(t.Context()))
			g = r.get(w, g.ID)
			require.Equal(t, store.Active, g.State, g.Reason)
			require.GreaterOrEqual(t, g.Version, int64(3), "it is not refreshed")
			set, err := w.Tokens(t.Context(), g)
			require.NoError(t, err)
			l := r.sim.Ledger()
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
