package chaos

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
)

// Every dialect is in the mix, or left out on purpose.
func TestEveryDialectIsSpokenSomewhere(t *testing.T) {
	leftOut := []string{
		"mfa", "mfaAskedAgain", "mfaCodeInvalid", // they take a user who enters codes
		"legal", "legalUnder200", // tried again after an hour
		"removalServerFailure", "removalNotFound", // nobody disconnects
	}
	spoken := append(meshsim.DialectNames(meshsim.OnTokens, meshsim.OnLifetimes, meshsim.OnRefresh, meshsim.OnRefusal), "wallet")
	spoken = append(append(spoken, fronts...), deluges...)
	for _, m := range append(slices.Clone(behaviours), forms...) {
		spoken = append(spoken, m.dialects...)
	}
	for _, d := range meshsim.Dialects() {
		assert.NotEqual(t, slices.Contains(leftOut, d.Name), slices.Contains(spoken, d.Name), d.Name)
	}
}

// The grants of a short run are enough for each manner.
func TestEveryMannerHasAGrant(t *testing.T) {
	const grants = 40
	used := map[string]bool{}
	several := map[string]bool{}
	for i := range grants {
		for _, d := range mannerOf(i).dialects {
			used[d], several[d] = true, several[d] || len(accountsOf(i)) > 1
		}
	}
	for _, m := range append(slices.Clone(behaviours), forms...) {
		for _, d := range m.dialects {
			assert.True(t, used[d], d)
			assert.True(t, several[d] || m.delayed || m.accounts == 1, "%s: one account", d)
		}
	}
}
