package refresher_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

func newTokens(accounts ...string) store.TokenSet {
	set := store.TokenSet{RefreshToken: text("refresh-0"), TradeToken: text("trade")}
	for _, id := range accounts {
		set.Accounts = append(set.Accounts, store.AccountToken{AccountID: id, AccessToken: text("access-0-" + id), TokenID: text("id-0-" + id)})
	}
	return set
}

func withAccounts(ids ...string) func(*store.Grant) {
	return func(g *store.Grant) {
		g.Accounts = nil
		for _, id := range ids {
			g.Accounts = append(g.Accounts, store.Account{ID: id, Name: "Name " + id, ExpiresAt: g.Access.ExpiresAt})
		}
	}
}

func answer(ids ...string) refresher.Answer {
	a := refresher.Answer{RefreshToken: text("refresh-1"), ExpiresIn: 2 * hour, RefreshExpiresIn: 30 * day}
	for _, id := range ids {
		a.Accounts = append(a.Accounts, refresher.AnsweredAccount{ID: id, Name: "New " + id, AccessToken: text("access-1-" + id)})
	}
	return a
}

// sentAt is when requests in these tests go out.
var sentAt = t0.Add(50 * time.Minute)

func TestAnsweredRenewsTheGrant(t *testing.T) {
	c := newClock(sentAt.Add(time.Second))
	unknown := t0
	g := newGrant(func(g *store.Grant) {
		g.Attempts, g.Deferrals, g.Warned, g.Unknown = 3, 2, events.ReasonRefreshFailing, &unknown
		g.Lease, g.Epoch = &store.Lease{Owner: "me", Until: t0.Add(day)}, 7
	})
	tokens, err := settler(c, 0).ApplyAnswer(g, newTokens("one"), answer("one"), false, 7, sentAt)
	require.NoError(t, err)

	require.Equal(t, "refresh-1", tokens.RefreshToken.Reveal())
	require.Equal(t, "trade", tokens.TradeToken.Reveal(), "is not part of any answer")
	require.Equal(t, "access-1-one", tokens.Account("one").AccessToken.Reveal())
	require.Equal(t, "id-0-one", tokens.Account("one").TokenID.Reveal(), "an id that is not told anew stays")
	require.Equal(t, int64(2), g.Version)
	require.Equal(t, int64(7), g.Applied)
	require.Equal(t, lasting(sentAt, 2*hour), g.Access, "counts from when the request went out")
	require.Equal(t, lasting(sentAt, 30*day), g.Refresh)
	require.Equal(t, []store.Account{{ID: "one", Name: "New one", ExpiresAt: g.Access.ExpiresAt}}, g.Accounts)
	require.Zero(t, g.Attempts)
	require.Zero(t, g.Deferrals)
	require.Empty(t, g.Warned)
	require.Nil(t, g.Unknown)
	require.Nil(t, g.Lease)
	require.Equal(t, policy().Next(g), g.Due)
	require.True(t, g.Outbox.Schedule)

	told := announced(t, g)
	require.Len(t, told, 1)
	require.Equal(t, events.TokenRefreshed, told[0].Kind)
	require.Equal(t, g.Lifecycle(""), told[0].Data)
	require.Equal(t, c.Now(), told[0].Time)
}

func TestAnsweredRevivesAGrantThatWasGivenUp(t *testing.T) {
	purge := t0.Add(day)
	for _, state := range []store.State{store.Expired, store.MustAct} {
		g := newGrant(func(g *store.Grant) { g.State, g.Reason, g.PurgeAt = state, events.ReasonRejected, &purge })
		_, err := settler(newClock(sentAt), 0).ApplyAnswer(g, newTokens("one"), answer("one"), false, 2, sentAt)
		require.NoError(t, err)
		require.Equal(t, store.Active, g.State)
		require.Empty(t, g.Reason)
		require.Nil(t, g.PurgeAt)
	}
}

func TestAnsweredKeepsTheNewestEpoch(t *testing.T) {
	g := newGrant(func(g *store.Grant) { g.Applied = 5 })
	_, err := settler(newClock(sentAt), 0).ApplyAnswer(g, newTokens("one"), answer("one"), false, 4, sentAt)
	require.NoError(t, err)
	require.Equal(t, int64(5), g.Applied)
}

func TestLifetimesOfAnAnswer(t *testing.T) {
	assumed := func(since time.Time, d time.Duration) *store.Lifetime {
		l := lasting(since, d)
		l.Assumed = true
		return l
	}
	for name, c := range map[string]struct {
		grant           func(*store.Grant)
		answer          func(*refresher.Answer)
		renewed         bool
		access, refresh *store.Lifetime
	}{
		"stated": {nil, nil, false, lasting(sentAt, 2*hour), lasting(sentAt, 30*day)},
		"not stated: as long as before": {
			nil, func(a *refresher.Answer) { a.ExpiresIn, a.RefreshExpiresIn = 0, 0 }, false,
			assumed(sentAt, hour), assumed(sentAt, 90*day),
		},
		"never stated": {
			func(g *store.Grant) { g.Access, g.Refresh = endless(t0), endless(t0) },
			func(a *refresher.Answer) { a.ExpiresIn, a.RefreshExpiresIn = 0, 0 }, false, endless(sentAt), endless(sentAt),
		},
		"the first access token of a delayed grant": {
			func(g *store.Grant) { g.Access = nil },
			func(a *refresher.Answer) { a.ExpiresIn = 0 }, false, endless(sentAt), lasting(sentAt, 30*day),
		},
		"a life before of nothing": {
			func(g *store.Grant) { g.Access = lasting(t0, 0) },
			func(a *refresher.Answer) { a.ExpiresIn = 0 }, false, assumed(sentAt, time.Second), lasting(sentAt, 30*day),
		},
		"refresh token kept": {
			nil, func(a *refresher.Answer) { a.RefreshToken, a.RefreshExpiresIn = text(""), 0 }, false,
			lasting(sentAt, 2*hour), lasting(t0, 90*day),
		},
		"refresh token echoed": {
			nil, func(a *refresher.Answer) { a.RefreshToken, a.RefreshExpiresIn = text("refresh-0"), 0 }, false,
			lasting(sentAt, 2*hour), lasting(t0, 90*day),
		},
		"refresh token kept, its life stated anew": {
			nil, func(a *refresher.Answer) { a.RefreshToken = text("") }, false,
			lasting(sentAt, 2*hour), lasting(sentAt, 30*day),
		},
		"asked for a refresh token and got none": {
			nil, func(a *refresher.Answer) { a.RefreshToken, a.RefreshExpiresIn = text(""), 0 }, true,
			lasting(sentAt, 2*hour), &store.Lifetime{Since: t0, ExpiresAt: new(t0.Add(90 * day)), RequestedAt: &sentAt},
		},
		"asked for a refresh token and got a life": {
			nil, func(a *refresher.Answer) { a.RefreshToken = text("") }, true,
			lasting(sentAt, 2*hour), &store.Lifetime{Since: sentAt, ExpiresAt: new(sentAt.Add(30 * day)), RequestedAt: &sentAt},
		},
		"asked for a refresh token and got one": {
			func(g *store.Grant) { g.Refresh.RequestedAt = &t0 }, nil, true,
			lasting(sentAt, 2*hour), lasting(sentAt, 30*day),
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, a := newGrant(), answer("one")
			if c.grant != nil {
				c.grant(g)
			}
			if c.answer != nil {
				c.answer(&a)
			}
			tokens, err := settler(newClock(sentAt), 0).ApplyAnswer(g, newTokens("one"), a, c.renewed, 2, sentAt)
			require.NoError(t, err)
			require.Equal(t, c.access, g.Access)
			require.Equal(t, c.refresh, g.Refresh)
			want := "refresh-0"
			if a.RefreshToken.Reveal() == "refresh-1" {
				want = "refresh-1"
			}
			require.Equal(t, want, tokens.RefreshToken.Reveal())
		})
	}
}

// An institution that keeps its refresh token and tells with each answer how
// long it still lives must not be asked ever faster towards the end.
func TestRenewalsOfATokenWhoseRemainingLifeIsStatedStayAMinuteApart(t *testing.T) {
	c := newClock(t0)
	s, g, tokens := settler(c, 0), newGrant(func(g *store.Grant) { g.Access = endless(t0) }), newTokens("one")
	end := *g.Refresh.ExpiresAt
	for calls := 1; ; calls++ {
		at := store.Milli(*s.Policy.RenewAt(g))
		if !at.Before(end) {
			require.Greater(t, calls, 5)
			return
		}
		require.Less(t, calls, 60)
		require.True(t, calls == 1 || at.Sub(c.Now()) >= time.Minute, "%s after %s", at, c.Now())
		c.Set(at)
		var err error
		tokens, err = s.ApplyAnswer(g, tokens, refresher.Answer{AccessToken: text("access"), RefreshExpiresIn: end.Sub(at)}, true, int64(calls), at)
		require.NoError(t, err)
	}
}

func TestWhichAccountGetsWhichToken(t *testing.T) {
	type tokens = map[string]string
	for name, c := range map[string]struct {
		has    []string // accounts of the grant, each with a token but "new"
		answer refresher.Answer
		want   tokens
	}{
		"each its own": {[]string{"one", "two"}, answer("two", "one"), tokens{"one": "access-1-one", "two": "access-1-two"}},
		"an account that is missing keeps its own": {
			[]string{"one", "two"},
			answer("two"),
			tokens{"one": "access-0-one", "two": "access-1-two"},
		},
		"an account that is unknown is passed over": {[]string{"one"}, answer("one", "other"), tokens{"one": "access-1-one"}},
		"a grant without accounts takes all":        {nil, answer("one", "two"), tokens{"one": "access-1-one", "two": "access-1-two"}},
		"an answer about unknown ones only":         {[]string{"one"}, answer("other"), tokens{"one": "access-0-one", "other": "access-1-other"}},
		"an account without id, of a grant of one":  {[]string{"one"}, answer(""), tokens{"one": "access-1-"}},
		"the deprecated token is everybody's": {
			[]string{"one", "two"},
			refresher.Answer{AccessToken: text("shared")},
			tokens{"one": "shared", "two": "shared"},
		},
		"the deprecated token is the named account's": {
			[]string{"one", "two"},
			refresher.Answer{AccessToken: text("shared"), Accounts: []refresher.AnsweredAccount{{ID: "two"}}},
			tokens{"one": "access-0-one", "two": "shared"},
		},
		"an account without token does not lose its own": {
			[]string{"one", "two"},
			refresher.Answer{Accounts: []refresher.AnsweredAccount{{ID: "one"}, {ID: "two", AccessToken: text("new")}}},
			tokens{"one": "access-0-one", "two": "new"},
		},
		"the deprecated token of a grant that knows no account": {nil, refresher.Answer{AccessToken: text("shared")}, tokens{"": "shared"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrant(withAccounts(c.has...))
			set, err := settler(newClock(sentAt), 0).ApplyAnswer(g, newTokens(c.has...), c.answer, false, 2, sentAt)
			require.NoError(t, err)
			got := tokens{}
			for _, a := range set.Accounts {
				got[a.AccountID] = a.AccessToken.Reveal()
				require.Equal(t, a.AccountID != "", g.Account(a.AccountID) != nil)
			}
			require.Equal(t, c.want, got)
		})
	}
}

func TestAnsweredLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), rapid.ID)
		has, told := ids.Draw(t, "has"), ids.Draw(t, "told")
		a := answer(told...)
		a.ExpiresIn = time.Duration(rapid.IntRange(0, 90000).Draw(t, "expires in")) * time.Second
		a.RefreshExpiresIn = time.Duration(rapid.IntRange(0, 9000000).Draw(t, "refresh expires in")) * time.Second
		a.RefreshToken = text(rapid.SampledFrom([]string{"", "refresh-0", "refresh-1"}).Draw(t, "refresh token"))
		if len(told) == 0 {
			a.AccessToken = text("shared")
		}
		g := newGrant(withAccounts(has...))
		g.Access, g.Refresh = lives(t, "access"), lives(t, "refresh")
		version := g.Version
		set, err := settler(newClock(sentAt), 0).ApplyAnswer(g, newTokens(has...), a, rapid.Bool().Draw(t, "renewed"), 2, sentAt)
		require.NoError(t, err)
		require.Equal(t, version+1, g.Version)
		require.Equal(t, "token.refreshed: ", reasons(t, g)[0])
		want := a.RefreshToken
		if want.Empty() {
			want = text("refresh-0")
		}
		require.Equal(t, want.Reveal(), set.RefreshToken.Reveal())
		fresh := 0
		for _, id := range has {
			require.NotNil(t, set.Account(id), "no account is dropped")
		}
		for _, account := range set.Accounts {
			require.False(t, account.AccessToken.Empty())
			if account.AccessToken.Reveal() != fmt.Sprint("access-0-", account.AccountID) {
				fresh++
				if account.AccountID == "" { // no account is known
					require.Empty(t, g.Accounts)
					continue
				}
				require.Equal(t, g.Access.ExpiresAt, g.Account(account.AccountID).ExpiresAt)
			}
		}
		require.Positive(t, fresh)
		if len(g.OlderAccess) == 0 {
			require.Equal(t, g.Access.ExpiresAt == nil && (g.Refresh == nil || g.Refresh.ExpiresAt == nil), g.Due == nil)
		}
	})
}

// TestANewRefreshTokenAlone: it is stored, the access token of before stays what it
// is, and another is asked for at once.
func TestANewRefreshTokenAlone(t *testing.T) {
	for name, a := range map[string]refresher.Answer{
		"in an entry":         {Accounts: []refresher.AnsweredAccount{{ID: "one", RefreshToken: text("refresh-1")}}},
		"in a nameless entry": {Accounts: []refresher.AnsweredAccount{{RefreshToken: text("refresh-1")}}},
		"deprecated":          {RefreshToken: text("refresh-1")},
	} {
		c := newClock(sentAt.Add(time.Second))
		g := newGrant(func(g *store.Grant) { g.Lease, g.Unknown = &store.Lease{Owner: "me", Until: t0.Add(day)}, new(t0) })
		access := *g.Access
		tokens, err := settler(c, 0.5).ApplyAnswer(g, newTokens("one"), a, false, 7, sentAt)
		require.NoError(t, err, name)
		require.Equal(t, "refresh-1", tokens.RefreshToken.Reveal(), name)
		require.Equal(t, "access-0-one", tokens.Account("one").AccessToken.Reveal(), name)
		require.Equal(t, access, *g.Access, "%s: its end is its own", name)
		require.Equal(t, int64(2), g.Version, name)
		require.Nil(t, g.Lease, name)
		require.Nil(t, g.Unknown, "%s: the replacement is known", name)
		require.Equal(t, &store.Due{At: store.Milli(c.Now()), Action: store.Refresh}, g.Due, name)
		require.Empty(t, announced(t, g), "%s: nothing was refreshed that a subscriber could use", name)

		// Again and again: with growing pauses.
		var waits []time.Duration
		for n := range 4 {
			a := refresher.Answer{RefreshToken: text(fmt.Sprint("refresh-", n+2))}
			tokens, err = settler(c, 1).ApplyAnswer(g, tokens, a, false, int64(8+n), sentAt)
			require.NoError(t, err, name)
			waits = append(waits, g.Due.At.Sub(store.Milli(c.Now())))
		}
		require.IsIncreasing(t, waits, name)
		require.Equal(t, "refresh-5", tokens.RefreshToken.Reveal(), name)
		require.Equal(t, access, *g.Access, name)

		_, err = settler(c, 0).ApplyAnswer(g, tokens, answer("one"), false, 20, sentAt)
		require.NoError(t, err, name)
		require.Zero(t, g.Attempts, name)
		require.Equal(t, events.TokenRefreshed, announced(t, g)[len(announced(t, g))-1].Kind, name)
	}
}

// However often refreshes have failed before: what an answer brings is used at once. Only
// a refresh token that was presented for that, and brought the next one alone, is
// followed by a pause.
func TestANewRefreshTokenAloneAfterFailures(t *testing.T) {
	for name, change := range map[string]func(*store.Grant){
		"served":              func(*store.Grant) {},
		"over":                func(g *store.Grant) { g.Access = lasting(t0.Add(-2*hour), hour); g.Refresh.Since = g.Access.Since },
		"no access token yet": func(g *store.Grant) { g.Access = nil },
		"the same refresh token": func(g *store.Grant) {
			g.Version, g.Access = 3, lasting(t0.Add(time.Minute), hour)
			g.Access.Version = 3
		},
	} {
		c := newClock(sentAt.Add(time.Second))
		g := newGrant(change, func(g *store.Grant) { g.Attempts, g.Unknown = 9, new(t0) })
		tokens, err := settler(c, 1).ApplyAnswer(g, newTokens("one"), refresher.Answer{RefreshToken: text("refresh-1")}, false, 7, sentAt)
		require.NoError(t, err, name)
		require.Equal(t, &store.Due{At: store.Milli(c.Now()), Action: store.Refresh}, g.Due, name)

		failed(t, g, 1, &refresher.Failure{Class: refresher.Transient})
		require.True(t, g.Due.At.After(store.Milli(c.Now())), name)
		_, err = settler(c, 1).ApplyAnswer(g, tokens, refresher.Answer{RefreshToken: text("refresh-2")}, false, 8, sentAt.Add(time.Second))
		require.NoError(t, err, name)
		require.True(t, g.Due.At.After(store.Milli(c.Now())), "%s: no loop", name)
	}
}
