package refresher_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// entry is one of an answer: an account, an access token and a refresh token, each
// empty for none.
func entry(id, access, refresh string) refresher.AnsweredAccount {
	return refresher.AnsweredAccount{ID: id, AccessToken: text(access), RefreshToken: text(refresh)}
}

func entries(all ...refresher.AnsweredAccount) refresher.Answer {
	return refresher.Answer{Accounts: all, ExpiresIn: 2 * hour}
}

// given lists the access tokens of a set by account.
func given(set store.TokenSet) map[string]string {
	out := map[string]string{}
	for _, a := range set.Accounts {
		out[a.AccountID] = a.AccessToken.Reveal()
	}
	return out
}

// left lists the tokens of an answer that are not in the set that was made of it, nor
// were at hand before.
func left(a refresher.Answer, set store.TokenSet) (out []string) {
	refresh, other := refresher.Leftover(a, set)
	for _, token := range append(other, refresh...) {
		if !strings.Contains(token.Reveal(), "-0") {
			out = append(out, token.Reveal())
		}
	}
	return out
}

// Which tokens an answer without account ids brings to which accounts. Each account
// of the grant has "access-0-<id>", the grant "refresh-0".
func TestTokensWithoutAnAccount(t *testing.T) {
	type tokens = map[string]string
	named := func(name, access string) refresher.AnsweredAccount {
		return refresher.AnsweredAccount{Name: name, AccessToken: text(access)}
	}
	for name, c := range map[string]struct {
		has     []string
		answer  refresher.Answer
		want    tokens
		refresh string
		left    []string
	}{
		"Mesh's own example": {[]string{"one", "two"}, entries(entry("", "A", "R")), tokens{"one": "A", "two": "A"}, "R", nil},
		"the same token twice, for three": {
			[]string{"one", "two", "three"},
			entries(entry("", "A", ""), entry("", "A", "R")),
			tokens{"one": "A", "two": "A", "three": "A"},
			"R", nil,
		},
		"as many as accounts": {[]string{"one", "two"}, entries(entry("", "A", "R"), entry("", "B", "R")), tokens{"one": "A", "two": "B"}, "R", nil},
		"fewer than accounts": {
			[]string{"one", "two", "three"},
			entries(entry("", "A", "R"), entry("", "B", "R")),
			tokens{"one": "access-0-one", "two": "access-0-two", "three": "access-0-three"},
			"R",
			[]string{"A", "B"},
		},
		"more than accounts": {
			[]string{"one", "two"},
			entries(entry("", "A", "R"), entry("", "B", ""), entry("", "C", "")),
			tokens{"one": "access-0-one", "two": "access-0-two"},
			"R",
			[]string{"A", "B", "C"},
		},
		"two for one account":                   {[]string{"one"}, entries(entry("", "A", "R"), entry("", "B", "")), tokens{"one": "access-0-one"}, "R", []string{"A", "B"}},
		"two for one account, one of them old":  {[]string{"one"}, entries(entry("", "A", "R"), entry("", "access-0-one", "")), tokens{"one": "A"}, "R", nil},
		"the one that is left":                  {[]string{"one", "two"}, entries(entry("", "A", "R"), entry("one", "B", "R")), tokens{"one": "B", "two": "A"}, "R", nil},
		"as many as are left":                   {[]string{"one", "two", "three"}, entries(entry("", "A", ""), entry("two", "B", ""), entry("", "C", "")), tokens{"one": "A", "two": "B", "three": "C"}, "refresh-0", nil},
		"one for two that are left":             {[]string{"one", "two", "three"}, entries(entry("", "A", ""), entry("two", "B", "")), tokens{"one": "access-0-one", "two": "B", "three": "access-0-three"}, "refresh-0", []string{"A"}},
		"one too many":                          {[]string{"one"}, entries(entry("", "A", ""), entry("one", "B", "")), tokens{"one": "B"}, "refresh-0", []string{"A"}},
		"a repetition of a named one":           {[]string{"one", "two"}, entries(entry("", "B", ""), entry("one", "B", "")), tokens{"one": "B", "two": "access-0-two"}, "refresh-0", nil},
		"beside another's":                      {[]string{"one"}, entries(entry("", "A", ""), entry("other", "B", "")), tokens{"one": "A"}, "refresh-0", []string{"B"}},
		"by display name":                       {[]string{"one", "two"}, entries(named("Name two", "A")), tokens{"one": "access-0-one", "two": "A"}, "refresh-0", nil},
		"two of one display name":               {[]string{"one", "two"}, entries(named("Name two", "A"), named("Name two", "B")), tokens{"one": "A", "two": "B"}, "refresh-0", nil},
		"the deprecated one of a nameless":      {[]string{"one", "two"}, refresher.Answer{AccessToken: text("A"), Accounts: []refresher.AnsweredAccount{entry("", "", "R")}}, tokens{"one": "A", "two": "A"}, "R", nil},
		"the deprecated one is not a missing's": {[]string{"one", "two"}, refresher.Answer{AccessToken: text("A"), Accounts: []refresher.AnsweredAccount{entry("one", "A", ""), entry("two", "", "R")}}, tokens{"one": "A", "two": "access-0-two"}, "R", nil},
		"the deprecated one beside another":     {[]string{"one"}, refresher.Answer{AccessToken: text("A"), Accounts: []refresher.AnsweredAccount{entry("one", "B", "")}}, tokens{"one": "B"}, "refresh-0", []string{"A"}},
		"no account is known":                   {nil, entries(entry("", "A", "R")), tokens{"": "A"}, "R", nil},
		"no account is known, several":          {nil, entries(entry("", "A", "R"), entry("", "B", "R")), tokens{"": "A"}, "R", []string{"B"}},
		"no account is known, some are named":   {nil, entries(entry("", "A", "R"), entry("one", "B", "R")), tokens{"one": "B"}, "R", []string{"A"}},
		"one account twice":                     {[]string{"one"}, entries(entry("one", "A", "R"), entry("one", "access-0-one", "")), tokens{"one": "A"}, "R", nil},
		"one account twice, the old one first":  {[]string{"one"}, entries(entry("one", "access-0-one", ""), entry("one", "A", "R")), tokens{"one": "A"}, "R", nil},
		"one account with two new ones":         {[]string{"one"}, entries(entry("one", "A", "R"), entry("one", "B", "")), tokens{"one": "B"}, "R", []string{"A"}},
		"a refresh token alone":                 {[]string{"one"}, entries(entry("", "", "R")), tokens{"one": "access-0-one"}, "R", nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrant(withAccounts(c.has...))
			set, err := settler(newClock(sentAt), 0).ApplyAnswer(g, newTokens(c.has...), c.answer, false, 2, sentAt)
			require.NoError(t, err)
			require.Equal(t, c.want, given(set))
			require.Equal(t, c.refresh, set.RefreshToken.Reveal())
			require.ElementsMatch(t, c.left, left(c.answer, set))
			require.Nil(t, g.Account(""))
			var refreshed []string
			for _, e := range announced(t, g) {
				if e.Kind == events.TokenRefreshed {
					for _, a := range e.Data.Accounts {
						refreshed = append(refreshed, a.AccountID)
					}
				}
			}
			for _, a := range g.Accounts {
				fresh := set.Account(a.ID).AccessToken.Reveal() != "access-0-"+a.ID
				require.Equal(t, fresh, slices.Contains(refreshed, a.ID), "an event names who got a token, and nobody else")
				if !fresh {
					require.Equal(t, t0.Add(hour), *a.ExpiresAt, "keeps the end of its own token")
				}
			}
		})
	}
}

// Which of several refresh tokens is the grant's. The one presented is "refresh-0".
func TestTheRefreshTokenIsTheGrantsOwn(t *testing.T) {
	const old = "refresh-0"
	for name, c := range map[string]struct {
		answer refresher.Answer
		want   string
		own    map[string]string
		left   []string
	}{
		"another's first":               {entries(entry("other", "X", "R-other"), entry("one", "A", "R")), "R", nil, []string{"X", "R-other"}},
		"another's alone":               {entries(entry("other", "X", "R-other"), entry("one", "A", "")), old, nil, []string{"X", "R-other"}},
		"a nameless one first":          {entries(entry("", "X", "R-nobody"), entry("one", "A", "R"), entry("two", "B", "")), "R", nil, []string{"X", "R-nobody"}},
		"an echo first":                 {entries(entry("one", "A", old), entry("two", "B", "R")), "R", nil, nil},
		"an echo last":                  {entries(entry("one", "A", "R"), entry("two", "B", old)), "R", nil, nil},
		"an echo of a nameless":         {entries(entry("", "A", old), entry("", "A", "R")), "R", nil, nil},
		"an echo before the deprecated": {refresher.Answer{RefreshToken: text("R"), Accounts: []refresher.AnsweredAccount{entry("one", "A", old)}}, "R", nil, nil},
		"a deprecated echo":             {refresher.Answer{RefreshToken: text(old), Accounts: []refresher.AnsweredAccount{entry("one", "A", "R")}}, "R", nil, nil},
		"a deprecated one of its own":   {refresher.Answer{RefreshToken: text("R-top"), Accounts: []refresher.AnsweredAccount{entry("one", "A", "R")}}, "R", nil, []string{"R-top"}},
		"echoes only":                   {entries(entry("one", "A", old), entry("two", "B", old)), old, nil, nil},
		"one each":                      {entries(entry("two", "B", "R-two"), entry("one", "A", "R-one")), "R-one", map[string]string{"two": "R-two"}, nil},
		"one each, by position":         {entries(entry("", "A", "R-one"), entry("", "B", "R-two")), "R-one", map[string]string{"two": "R-two"}, nil},
		"one each for one access token": {entries(entry("", "A", "R-one"), entry("", "A", "R-two")), "R-one", map[string]string{"two": "R-two"}, nil},
		"without an access token":       {entries(entry("one", "A", "R-one"), entry("two", "", "R-two")), "R-one", map[string]string{"two": "R-two"}, nil},
		"several of nobody":             {entries(entry("", "X", "R"), entry("", "Y", "R-2"), entry("", "Z", "R-3")), "R", nil, []string{"X", "Y", "R-2", "Z", "R-3"}},
		"several of one account":        {entries(entry("one", "A", "R"), entry("one", "A", "R-2")), "R", nil, []string{"R-2"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrant(withAccounts("one", "two"))
			set, err := settler(newClock(sentAt), 0).ApplyAnswer(g, newTokens("one", "two"), c.answer, false, 2, sentAt)
			require.NoError(t, err)
			require.Equal(t, c.want, set.RefreshToken.Reveal())
			require.ElementsMatch(t, c.left, left(c.answer, set))
			own := map[string]string{}
			for _, a := range set.Accounts {
				if !a.RefreshToken.Empty() {
					own[a.AccountID] = a.RefreshToken.Reveal()
				}
			}
			require.Equal(t, c.own != nil, len(own) > 0)
			if c.own != nil {
				require.Equal(t, c.own, own)
			}
		})
	}
}

// Whatever an answer holds, there is no account twice and none with an empty id, and
// nobody gets a token that the answer says is somebody else's.
func TestNobodyGetsATokenOfAnother(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := []string{"a", "b", "c", "other"}
		token := func(what string) string {
			return rapid.OneOf(rapid.Just(""), rapid.Map(rapid.IntRange(0, 4), func(n int) string { return fmt.Sprintf("%s-%d", what, n) })).Draw(t, what)
		}
		has := rapid.SliceOfDistinct(rapid.SampledFrom(ids[:3]), rapid.ID).Draw(t, "has")
		a := refresher.Answer{AccessToken: text(token("access")), RefreshToken: text(token("refresh")), ExpiresIn: hour}
		for range rapid.IntRange(0, 5).Draw(t, "entries") {
			a.Accounts = append(a.Accounts, refresher.AnsweredAccount{
				ID: rapid.SampledFrom(append(ids, "", "")).Draw(t, "id"), Name: rapid.SampledFrom([]string{"", "Name a", "Name b"}).Draw(t, "name"),
				AccessToken: text(token("access")), RefreshToken: text(token("refresh")), TokenID: text(token("id")),
			})
		}
		g, before := newGrant(withAccounts(has...)), newTokens(has...)
		if len(has) == 0 {
			g.Access = nil
		}
		phantom := len(has) > 0 && rapid.Bool().Draw(t, "phantom")
		if phantom {
			g.Accounts = append(g.Accounts, store.Account{ExpiresAt: g.Access.ExpiresAt})
			before.Accounts = append(before.Accounts, store.AccountToken{AccessToken: text("phantom")})
		}
		set, err := settler(newClock(sentAt), 0).ApplyAnswer(g, before, a, false, 2, sentAt)
		require.NoError(t, err)

		known := map[string]bool{}
		for _, account := range set.Accounts {
			require.False(t, known[account.AccountID], "once")
			known[account.AccountID] = true
			if account.AccountID != "" {
				require.NotNil(t, g.Account(account.AccountID))
			}
			require.False(t, account.AccountID == "" && len(g.Accounts) > 0, "no empty id beside others")
		}
		require.Nil(t, g.Account(""))
		shared := map[string]map[string]bool{} // the accounts that the answer names for an access token
		for _, in := range a.Accounts {
			if shared[in.AccessToken.Reveal()] == nil {
				shared[in.AccessToken.Reveal()] = map[string]bool{}
			}
			shared[in.AccessToken.Reveal()][in.ID] = true
		}
		for _, account := range set.Accounts {
			if owners := shared[account.AccessToken.Reveal()]; len(owners) > 0 && !owners[""] && !a.AccessToken.Equal(account.AccessToken) {
				require.True(t, owners[account.AccountID], "%s has a token of %v", account.AccountID, owners)
			}
		}
	})
}

// An earlier release made an account with an empty id of a token without account,
// which the real accounts then lacked.
func TestAnAccountWithAnEmptyIDIsHealed(t *testing.T) {
	g := newGrant(withAccounts("one", "two"))
	g.Access = lasting(t0.Add(hour), 2*hour)
	g.Accounts = append(g.Accounts, store.Account{ExpiresAt: g.Access.ExpiresAt})
	set := newTokens("one", "two", "")
	healed, tokens := g.Clone(), newTokens("one", "two", "")
	healed.Heal(&tokens)
	require.Equal(t, map[string]string{"one": "access-0-", "two": "access-0-"}, given(tokens))
	for _, a := range healed.Accounts {
		require.Equal(t, g.Access, healed.AccessOf(a))
	}
	set, err := settler(newClock(sentAt), 0).ApplyAnswer(g, set, entries(entry("one", "A", "R")), false, 2, t0.Add(2*hour))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"one": "A", "two": "access-0-"}, given(set))
	require.Len(t, g.Accounts, 2)

	unknown := newGrant(withAccounts(""))
	set, err = settler(newClock(sentAt), 0).ApplyAnswer(unknown, newTokens(""), entries(entry("one", "A", "")), false, 2, sentAt)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"one": "A"}, given(set))
	require.Equal(t, []string{"one"}, unknown.AccountIDs())
}

// An answer that brings no access token is asked for one at once, and then with
// growing pauses: no loop.
func TestARefreshTokenAloneIsUsedAtOnce(t *testing.T) {
	c := newClock(sentAt)
	s, g, set := settler(c, 1), newGrant(withAccounts("one")), newTokens("one")
	for n := range 12 {
		var err error
		set, err = s.ApplyAnswer(g, set, entries(entry("one", "", fmt.Sprint("R", n))), false, int64(n+2), c.Now())
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint("R", n), set.RefreshToken.Reveal())
		require.Equal(t, map[string]string{"one": "access-0-one"}, given(set))
		require.Equal(t, lasting(t0, hour).ExpiresAt, g.Access.ExpiresAt)
		require.Equal(t, store.Refresh, g.Due.Action)
		if n == 0 {
			require.Equal(t, c.Now(), g.Due.At)
		} else if n < 4 {
			require.True(t, g.Due.At.After(c.Now()), n)
		}
		c.Set(g.Due.At)
	}
	require.NotContains(t, reasons(t, g), "token.refreshed: ", "nobody got a token")
	_, err := s.ApplyAnswer(g, set, entries(entry("one", "A", "")), false, 20, c.Now())
	require.NoError(t, err)
	require.Zero(t, g.Attempts)
	require.Contains(t, reasons(t, g), "token.refreshed: ")
}
