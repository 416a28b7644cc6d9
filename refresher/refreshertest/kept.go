package refreshertest

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim/meshsimtest"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

// RequireKept looks for the tokens of an answer in those that are kept, and in the
// bodies that were left. What comes in a form that is not read is left as it came.
func RequireKept(t require.TestingT, given meshsimtest.Answer, kept []secret.Text, bodies ...string) {
	var left string
	for _, body := range bodies {
		left += opened(body)
	}
	for _, token := range given.Tokens {
		require.True(t, slices.Contains(kept, secret.New(token)) || strings.Contains(left, token) || given.Escaped && strings.Contains(left, given.Body),
			"%s is nowhere, of HTTP %d %q", token, given.Status, given.Body)
	}
}

// opened is what an operator reads of what was left.
func opened(left string) string {
	if packed, ok := strings.CutPrefix(left, "base64: "); ok {
		if text, err := base64.StdEncoding.DecodeString(packed); err == nil {
			return string(text)
		}
	}
	return left
}

// TokensOf lists the tokens of a set.
func TokensOf(set store.TokenSet) []secret.Text {
	all := append([]secret.Text{set.RefreshToken, set.Interim, set.TradeToken}, set.Spare...)
	for _, account := range set.Accounts {
		all = append(all, account.AccessToken, account.TokenID, account.RefreshToken)
	}
	return all
}
