package refresher_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What stands in an answer says whose a token is, also behind damage, beside entries
// that say nothing and beside tokens that are at hand. Each account of the grant has
// "access-0-<id>".
func TestNobodyGetsATokenOfAnotherWhateverTheAnswer(t *testing.T) {
	type tokens = map[string]string
	const old1, old2 = "access-0-one", "access-0-two"
	both, list := []string{"one", "two"}, `{"status":"succeeded","expiresInSeconds":3600,"brokerAccountTokens":[`
	second := `{"account":{"accountId":"two"},"accessToken":"A2","refreshToken":"R"}`
	for name, c := range map[string]struct {
		has     []string
		content string
		want    tokens
		refresh string
	}{
		"a control character in a name": {both, list + `{"account":{"accountId":"one","accountName":"a` + "\x01" + `b"},"accessToken":"A1","refreshToken":"R"},` + second + `]}`, tokens{"one": old1, "two": "A2"}, "R"},
		"a number that is none":         {both, list + `{"account":{"accountId":"one","fund":NaN},"accessToken":"A1","refreshToken":"R"},` + second + `]}`, tokens{"one": old1, "two": "A2"}, "R"},
		"two behind the damage": {
			[]string{"one", "two", "three"},
			list + `{"account":{"accountId":"one","fund":NaN},"accessToken":"A1","refreshToken":"R"},` + second + `,{"account":{"accountId":"three"},"accessToken":"A3","refreshToken":"R"}]}`,
			tokens{"one": old1, "two": "A2", "three": "A3"},
			"R",
		},
		"another's entry behind the damage":          {[]string{"one"}, list + `{"account":{"accountId":"one","fund":NaN},"accessToken":"A1","refreshToken":"R"},` + second + `]}`, tokens{"one": old1}, "R"},
		"another's with another refresh token":       {[]string{"one"}, list + `{"account":{"accountId":"one","fund":NaN},"accessToken":"A1","refreshToken":"R"},{"account":{"accountId":"two"},"accessToken":"A2","refreshToken":"R2"}]}`, tokens{"one": old1}, "R"},
		"damage that names nobody, another's whole":  {[]string{"one"}, list + `{"x":NaN,"account":{"accountId":"one"},"accessToken":"A1","refreshToken":"R"},{"account":{"accountId":"one"}},` + second + `]}`, tokens{"one": old1}, "R"},
		"a comma too many":                           {both, list + `{"account":{"accountId":"one"},"accessToken":"A1","refreshToken":"R",},{"account":{"accountId":"two"},"accessToken":"A2","refreshToken":"R",}]}`, tokens{"one": "A1", "two": "A2"}, "R"},
		"damage before the account":                  {both, list + `{"x":NaN,"account":{"accountId":"one"},"accessToken":"A1"},{"x":NaN,"account":{"accountId":"two"},"accessToken":"A2","refreshToken":"R"}]}`, tokens{"one": old1, "two": old2}, "R"},
		"damage between token and account":           {both, list + `{"accessToken":"A2","refreshToken":"R","x":NaN,"account":{"accountId":"two"}}]}`, tokens{"one": old1, "two": old2}, "R"},
		"cut off before the account":                 {both, list + `{"accessToken":"A2","refreshToken":"R","account":{"acc`, tokens{"one": old1, "two": old2}, "R"},
		"a deprecated account beside another":        {both, list + `{"account":{"accountId":"one"},"refreshToken":"R"}],"account":{"accountId":"two"},"accessToken":"A2"}`, tokens{"one": old1, "two": "A2"}, "R"},
		"a deprecated account, the grant's other":    {[]string{"one"}, list + `{"account":{"accountId":"one"},"refreshToken":"R"}],"account":{"accountId":"two"},"accessToken":"A2"}`, tokens{"one": old1}, "R"},
		"a deprecated account by its name":           {both, list + `null],"account":{"accountName":"Name two"},"accessToken":"A2","refreshToken":"R"}`, tokens{"one": old1, "two": "A2"}, "R"},
		"a deprecated account, a null":               {both, list + `null],"account":{"accountId":"two"},"accessToken":"A2","refreshToken":"R"}`, tokens{"one": old1, "two": "A2"}, "R"},
		"a deprecated account of an entry":           {both, list + `{"accessToken":"A2","refreshToken":"R"}],"account":{"accountId":"two"}}`, tokens{"one": old1, "two": "A2"}, "R"},
		"a deprecated account of an entry, repeated": {both, list + `{"accessToken":"A2","refreshToken":"R"}],"account":{"accountId":"two"},"accessToken":"A2"}`, tokens{"one": old1, "two": "A2"}, "R"},
		"a deprecated account that is listed":        {both, list + `{"account":{"accountId":"one"},"accessToken":"A1","refreshToken":"R"},{"accessToken":"A2"}],"account":{"accountId":"one"}}`, tokens{"one": "A1", "two": "A2"}, "R"},
		"a deprecated token of all that are named":   {both, list + `{"account":{"accountId":"one"},"refreshToken":"R"},{"account":{"accountId":"two"}}],"accessToken":"A2"}`, tokens{"one": "A2", "two": "A2"}, "R"},

		"an echo before the deprecated":           {[]string{"one"}, list + `{"account":{"accountId":"one"},"accessToken":"access-0-one"}],"accessToken":"A1","refreshToken":"R"}`, tokens{"one": "A1"}, "R"},
		"an echo before the deprecated account's": {both, list + `{"account":{"accountId":"one"},"accessToken":"access-0-one"}],"account":{"accountId":"one"},"accessToken":"A1","refreshToken":"R"}`, tokens{"one": "A1", "two": old2}, "R"},
		"an echo before a nameless":               {[]string{"one"}, list + `{"account":{"accountId":"one"},"accessToken":"access-0-one"},{"accessToken":"A1","refreshToken":"R"}]}`, tokens{"one": "A1"}, "R"},
		"an echo behind its like":                 {both, list + `{"account":{"accountId":"one"},"refreshToken":"R","accessToken":"A1","accessToken":"access-0-one"}]}`, tokens{"one": "A1", "two": old2}, "R"},
		"an echo before its like":                 {both, list + `{"account":{"accountId":"one"},"refreshToken":"R","accessToken":"access-0-one","accessToken":"A1"}]}`, tokens{"one": "A1", "two": old2}, "R"},
		"two new ones of one account: the last":   {both, list + `{"account":{"accountId":"one"},"refreshToken":"R","accessToken":"A1","accessToken":"A1b"}]}`, tokens{"one": "A1b", "two": old2}, "R"},
		"an echo beside several of nobody":        {both, list + `{"account":{"accountId":"one"},"accessToken":"access-0-one"},{"account":{"accountId":"two"},"accessToken":"access-0-two"},{"accessToken":"A1"}],"refreshToken":"R"}`, tokens{"one": old1, "two": old2}, "R"},

		"another's, twice, of a whole answer": {[]string{"one"}, list + `{"account":{"accountId":"one"},"accessToken":"A1"},{"account":{"accountId":"two"},"refreshToken":"R1","refreshToken":"R2"}]}`, tokens{"one": "A1"}, "refresh-0"},

		"an entry that says nothing":         {both, list + `{"accessToken":"A1","refreshToken":"R"},{"accessToken":"A2","refreshToken":"R"},null]}`, tokens{"one": "A1", "two": "A2"}, "R"},
		"an empty entry first":               {both, list + `{},{"accessToken":"A1","refreshToken":"R"},{"accessToken":"A2","refreshToken":"R"}]}`, tokens{"one": "A1", "two": "A2"}, "R"},
		"an entry with a refresh token":      {both, list + `{"accessToken":"A1"},{"accessToken":"A2"},{"refreshToken":"R"}]}`, tokens{"one": "A1", "two": "A2"}, "R"},
		"a token id that stands there twice": {[]string{"one"}, list + `{"account":{"accountId":"one"},"refreshToken":"R","tokenId":"T1","tokenId":"T2"}]}`, tokens{"one": old1}, "R"},
	} {
		t.Run(name, func(t *testing.T) {
			g, set, asked := newGrant(withAccounts(c.has...)), newTokens(c.has...), request
			for _, account := range set.Accounts {
				asked.Current = append(asked.Current, account.AccessToken)
			}
			text := body("ok", c.content)
			a, err := meshAnswering(t, 200, text).Refresh(t.Context(), asked)
			require.NoError(t, err)
			set, err = settler(newClock(sentAt), 0).ApplyAnswer(g, set, a, false, 2, sentAt)
			require.NoError(t, err)
			require.Equal(t, c.want, given(set))
			require.Equal(t, c.refresh, set.RefreshToken.Reveal())
			for _, account := range g.Accounts {
				if set.Account(account.ID).AccessToken.Reveal() == "access-0-"+account.ID {
					require.Equal(t, t0.Add(hour), *account.ExpiresAt, "it keeps the end of its own token")
				}
			}
		})
	}
}
