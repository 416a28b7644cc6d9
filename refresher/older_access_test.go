package refresher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// An account that no answer covers is asked for once more before the end of its own
// token, then that end is announced, and its coming: each once, and no refresh more.
func TestAnAccountThatAnswersDoNotCoverIsToldOf(t *testing.T) {
	c := newClock(t0)
	s, g, set := settler(c, 0), newGrant(withAccounts("one", "two")), newTokens("one", "two")
	g.Due = s.Policy.Next(g)
	end, calls := *g.Access.ExpiresAt, 0
	for c.Now().Before(t0.Add(10 * hour)) {
		if g.AccountsDue != nil && g.AccountsDue.Before(g.Due.At) {
			c.Set(*g.AccountsDue)
			require.NoError(t, s.AnnounceAccounts(g, c.Now()))
			continue
		}
		c.Set(g.Due.At)
		calls++
		require.Less(t, calls, 20, "a loop")
		var err error
		set, err = s.ApplyAnswer(g, set, refresher.Answer{ExpiresIn: hour, Accounts: []refresher.AnsweredAccount{entry("one", "A", "")}}, false, int64(calls+1), c.Now())
		require.NoError(t, err)
		require.Equal(t, "access-0-two", set.Account("two").AccessToken.Reveal())
		require.Equal(t, end, *g.Account("two").ExpiresAt)
	}
	var told []string
	refreshed := 0
	for _, e := range announced(t, g) {
		require.Len(t, e.Data.Accounts, 1)
		if e.Kind == events.TokenRefreshed {
			require.Equal(t, "one", e.Data.Accounts[0].AccountID)
			refreshed++
			continue
		}
		require.Equal(t, "two", e.Data.Accounts[0].AccountID)
		require.Equal(t, end, *e.Data.ExpiresAt)
		require.Equal(t, e.Kind == events.TokenExpired, !e.Time.Before(end))
		told = append(told, e.Kind+": "+string(e.Data.Reason))
	}
	require.Equal(t, []string{"token.expiring: not_covered", "token.expired: not_covered"}, told)
	require.Equal(t, calls, refreshed)
	require.Nil(t, g.AccountsDue)

	// Once an answer covers it, it is as any other.
	_, err := s.ApplyAnswer(g, set, answer("one", "two"), false, 99, c.Now())
	require.NoError(t, err)
	require.Empty(t, g.OlderAccess)
	require.Equal(t, g.Access, g.AccessOf(*g.Account("two")))
}

// Where the refreshes fail that were to ask for it, the end is announced too.
func TestTheEndOfAnAccountIsToldThoughRefreshesFail(t *testing.T) {
	c := newClock(t0.Add(50 * time.Minute))
	s, g := settler(c, 0), newGrant(withAccounts("one", "two"))
	_, err := s.ApplyAnswer(g, newTokens("one", "two"), refresher.Answer{ExpiresIn: hour, Accounts: []refresher.AnsweredAccount{entry("one", "A", "")}}, false, 2, c.Now())
	require.NoError(t, err)
	require.Equal(t, []string{"token.refreshed: "}, reasons(t, g))
	require.True(t, g.Due.At.Before(t0.Add(hour)), "asked for before its end")
	require.Equal(t, store.Refresh, g.Due.Action)
	require.NotNil(t, g.AccountsDue)
	s.Policy.ClockSkew, s.Policy.Lead = time.Minute, time.Minute // the last try comes ahead of the end
	g.AccountsDue = s.Policy.AccountsDue(g)
	for range 2 {
		c.Set(*g.AccountsDue)
		require.NoError(t, s.AnnounceAccounts(g, c.Now()))
	}
	require.Contains(t, reasons(t, g), "token.expiring: not_covered")
	require.Contains(t, reasons(t, g), "token.expired: not_covered")
	require.Nil(t, g.AccountsDue)
}

// An access token without a stated end lasts on, but an answer that does not cover its
// account has not refreshed it.
func TestAnAccountWithoutAnEndIsNotCalledRefreshed(t *testing.T) {
	for _, stated := range []time.Duration{0, hour} {
		g := newGrant(func(g *store.Grant) { g.Access = endless(t0) }, withAccounts("one", "two"))
		a := refresher.Answer{ExpiresIn: stated, Accounts: []refresher.AnsweredAccount{entry("one", "A", "R")}}
		set, err := settler(newClock(sentAt), 0).ApplyAnswer(g, newTokens("one", "two"), a, false, 2, sentAt)
		require.NoError(t, err)
		require.Equal(t, map[string]string{"one": "A", "two": "access-0-two"}, given(set))
		told := announced(t, g)
		require.Len(t, told, 1)
		require.Equal(t, events.TokenRefreshed, told[0].Kind)
		require.Len(t, told[0].Data.Accounts, 1)
		require.Equal(t, "one", told[0].Data.Accounts[0].AccountID)
	}
}

// That refreshes fail before the newest access tokens end is not true of an account whose
// token has no known end, or another one.
func TestRefreshFailingNamesTheAccountsWhoseTokensEnd(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(g *store.Grant) *time.Time // of the second account
		want []string
	}{
		"no end":        {func(*store.Grant) *time.Time { return nil }, []string{"one"}},
		"another end":   {func(g *store.Grant) *time.Time { end := g.Access.ExpiresAt.Add(hour); return &end }, []string{"one"}},
		"the same end":  {func(g *store.Grant) *time.Time { return g.Access.ExpiresAt }, []string{"one", "two"}},
		"of none known": {func(g *store.Grant) *time.Time { g.Account("one").ExpiresAt = nil; return nil }, []string{"one", "two"}},
	} {
		g := newGrant(withAccounts("one", "two"))
		g.Account("two").ExpiresAt = c.end(g)
		require.NoError(t, settler(newClock(t0), 0).AnnounceEnds(g, t0, true), name)
		told := announced(t, g)
		require.Len(t, told, 1, name)
		require.Equal(t, events.ReasonRefreshFailing, told[0].Data.Reason)
		var named []string
		for _, a := range told[0].Data.Accounts {
			named = append(named, a.AccountID)
		}
		require.Equal(t, c.want, named, name)
	}
}

// A grant that nothing renews any more ends with the access token that lives longest,
// whoever's it is: the end of another is that of its accounts.
func TestAGrantEndsWithTheAccessTokenThatLivesLongest(t *testing.T) {
	covers := refresher.Answer{ExpiresIn: time.Minute, Accounts: []refresher.AnsweredAccount{entry("one", "A", "")}}
	forever := func(g *store.Grant) {
		g.Access = endless(t0)
		for i := range g.Accounts {
			g.Accounts[i].ExpiresAt = nil
		}
	}
	for name, c := range map[string]struct {
		grant  func(*store.Grant)
		then   func(s refresher.Settler, g *store.Grant) // an end that Mesh or time has brought
		reason events.Reason
		lives  bool // it has no known end
	}{
		"refused":                               {func(*store.Grant) {}, nil, events.ReasonRejected, false},
		"refused, and a token has no known end": {forever, nil, events.ReasonRejected, true},
		"its user must act": {func(*store.Grant) {}, func(s refresher.Settler, g *store.Grant) {
			require.NoError(t, s.ApplyFailure(g, &refresher.Failure{Class: refresher.MustAct, Reason: events.ReasonMFARequired}))
		}, events.ReasonMFARequired, false},
		"its refresh token ends": {func(*store.Grant) {}, func(_ refresher.Settler, g *store.Grant) { g.Refresh = lasting(t0, time.Minute) }, events.ReasonRefreshTokenExpired, false},
		"it has no refresh token": {func(*store.Grant) {}, func(s refresher.Settler, g *store.Grant) {
			g.Refresh = nil
			s.Schedule(g, s.Policy.Next(g))
		}, events.ReasonNoRefreshToken, false},
	} {
		t.Run(name, func(t *testing.T) {
			at := newClock(t0.Add(4 * time.Minute))
			s, g := punctual(at, 0), newGrant(withAccounts("one", "two"), c.grant)
			_, err := s.ApplyAnswer(g, newTokens("one", "two"), covers, false, 2, at.Now())
			require.NoError(t, err)
			first := *g.Access.ExpiresAt
			require.Equal(t, t0.Add(5*time.Minute), first)
			if c.then != nil {
				c.then(s, g)
			}
			for range 30 {
				done, err := s.WithoutRefresh(g)
				require.NoError(t, err)
				if !done {
					f := refusals["rejected"]
					require.NoError(t, s.ApplyFailure(g, &f))
				}
				if g.Due == nil {
					break
				}
				if g.Due.At.After(at.Now()) {
					at.Set(g.Due.At)
				}
			}
			var ends []string
			for _, e := range announced(t, g) {
				if e.Kind != events.TokenExpired {
					continue
				}
				require.Equal(t, c.reason, e.Data.Reason)
				for _, a := range e.Data.Accounts {
					ends = append(ends, a.AccountID)
				}
				if len(ends) == 1 {
					require.False(t, e.Time.Before(first))
				} else {
					require.Equal(t, t0.Add(hour), e.Time)
				}
			}
			if c.lives {
				require.Equal(t, []string{"one"}, ends)
				require.Equal(t, store.MustAct, g.State)
				return
			}
			require.Equal(t, []string{"one", "two"}, ends, "each at its end, and once")
			require.Equal(t, store.Expired, g.State)
			require.False(t, g.Access.EndAnnounced)
		})
	}
}
