package refresher_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

var refusals = map[string]refresher.Failure{
	"rejected":    {Class: refresher.Dead, Reason: events.ReasonRejected},
	"not_found":   {Class: refresher.Dead, Reason: events.ReasonNotFound},
	"bad_request": {Class: refresher.BadRequest, Reason: events.ReasonBadRequest},
}

// play settles the same failure at each time at which a grant comes due, until it
// is given up or so many tries were made. It returns how many were.
func play(t require.TestingT, g *store.Grant, c *clock, f refresher.Failure, most int) (tries int) {
	s := punctual(c, 0)
	for g.State == store.Active && tries < most {
		if done, err := s.WithoutRefresh(g); done || err != nil {
			require.NoError(t, err)
			continue
		}
		again := f
		require.NoError(t, s.ApplyFailure(g, &again))
		if tries++; g.Due != nil && g.Due.At.After(c.Now()) && g.State == store.Active {
			c.Set(g.Due.At)
		}
	}
	return tries
}

// One refusal is no verdict, and no verdict ends what still works.
func TestARefusedGrantIsServedToItsEnd(t *testing.T) {
	for reason, f := range refusals {
		t.Run(reason, func(t *testing.T) {
			c := newClock(t0.Add(50 * time.Minute))
			g := newGrant()
			require.Equal(t, 1, play(t, g, c, f, 1))
			require.Equal(t, store.Active, g.State, "one word is no verdict")
			require.Equal(t, []string{"token.expiring: " + reason}, reasons(t, g), "told at once")
			require.Equal(t, store.Refresh, g.Due.Action)
			require.False(t, g.Due.At.After(*servedPolicy().LatestAttempt(g)), "tried again while it is served")
			require.GreaterOrEqual(t, g.Due.At.Sub(t0.Add(50*time.Minute)), time.Minute, "after a pause")
			require.Equal(t, 1, g.Attempts, "no request for a token hastens it")

			play(t, g, c, f, 10)
			require.Equal(t, store.MustAct, g.State)
			require.Equal(t, events.Reason(reason), g.Reason)
			require.True(t, c.Now().Before(t0.Add(hour)))
			require.Equal(t, store.Due{At: t0.Add(hour), Action: store.Expire}, *g.Due)
			require.Equal(t, []string{"token.expiring: " + reason}, reasons(t, g), "told once")

			done, err := settler(newClock(t0.Add(hour)), 0).WithoutRefresh(g)
			require.NoError(t, err)
			require.True(t, done)
			require.Equal(t, store.Expired, g.State)
			require.Equal(t, []string{"token.expiring: " + reason, "token.expired: " + reason}, reasons(t, g))
			require.Equal(t, t0.Add(hour).Add(config.Default().Retention.Expired), *g.PurgeAt)
		})
	}
}

// A refusal that another try takes back leaves nothing behind.
func TestARefusalThatWasASlip(t *testing.T) {
	c := newClock(t0.Add(50 * time.Minute))
	g, tokens := newGrant(), newTokens("one")
	play(t, g, c, refusals["rejected"], 1)
	s := settler(c, 0)
	_, err := s.ApplyAnswer(g, tokens, refresher.Answer{AccessToken: text("new"), ExpiresIn: hour}, false, 2, c.Now())
	require.NoError(t, err)
	require.Nil(t, g.Refusals)
	require.Nil(t, g.Failing)
	require.Equal(t, store.Active, g.State)
	require.Equal(t, []string{"token.expiring: rejected", "token.refreshed: "}, reasons(t, g))
}

// However long tokens live: at least two tries with a pause between them, no more
// than a few, no end before that of what is served, and an end.
func TestRefusedGrantsOfAllLives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		life := time.Duration(rapid.Int64Range(1, int64(30*day)/int64(time.Second)).Draw(t, "life")) * time.Second
		at := time.Duration(rapid.Float64Range(0, 1.5).Draw(t, "share") * float64(life))
		name := rapid.SampledFrom([]string{"rejected", "not_found", "bad_request"}).Draw(t, "reason")
		g := newGrant(func(g *store.Grant) { g.Access = lasting(t0, life) })
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			g.Access = nil
		case 1:
			g.Access = endless(t0)
		}
		began := t0.Add(at).Truncate(time.Millisecond)
		c := newClock(began)
		tries := play(t, g, c, refusals[name], 100)
		require.GreaterOrEqual(t, tries, 2)
		require.LessOrEqual(t, tries, 16)
		require.GreaterOrEqual(t, c.Now().Sub(began), 2*time.Second)
		if g.State == store.Expired {
			require.True(t, g.Access.Expired(c.Now()), "served to its end")
		} else {
			require.Equal(t, store.MustAct, g.State)
			require.Equal(t, g.Access.ExpiresAt == nil, g.Due == nil)
		}
	})
}

// Whoever has a refused token presented before its time confirms nothing by it.
func TestARefusalWithoutAPauseConfirmsNothing(t *testing.T) {
	c := newClock(t0.Add(hour))
	g := newGrant()
	s := settler(c, 0)
	for range 20 {
		f := refusals["rejected"]
		require.NoError(t, s.ApplyFailure(g, &f))
		require.Equal(t, store.Active, g.State)
		require.Equal(t, 1, g.Refusals.Times)
	}
	require.Equal(t, []string{"token.expiring: rejected"}, reasons(t, g))
}

// What the access token may cure is tried with it at once.
func TestWhatMayLackTheAccessTokenIsTriedWithIt(t *testing.T) {
	for name, f := range map[string]refresher.Failure{
		"the request is blamed": {Class: refresher.BadRequest, Reason: events.ReasonBadRequest, AccessTokenMissing: true},
		"nothing is blamed":     {Class: refresher.Dead, Reason: events.ReasonRejected, AccessTokenMissing: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrant()
			failed(t, g, 1, &f)
			require.True(t, g.SendAccess)
			require.Equal(t, store.Due{At: sentAt, Action: store.Refresh}, *g.Due, "at once")
			require.Zero(t, g.Attempts)
			require.Empty(t, reasons(t, g))
			failed(t, g, 1, &f)
			require.Equal(t, []string{"token.expiring: " + string(f.Reason)}, reasons(t, g))
			require.True(t, g.Due.At.After(sentAt))
		})
	}
	g := newGrant()
	failed(t, g, 1, &refresher.Failure{Class: refresher.Dead, Reason: events.ReasonRejected})
	require.False(t, g.SendAccess, "the token is blamed: there is nothing to cure")
}

// While verdicts are held a grant does not end, its user is told no reason, and
// what was refused meanwhile counts for nothing.
func TestHeldVerdicts(t *testing.T) {
	c := newClock(t0.Add(50 * time.Minute))
	g := newGrant(func(g *store.Grant) { g.Refresh = endless(t0) })
	held := refusals["rejected"]
	held.Held = true
	require.Equal(t, 50, play(t, g, c, held, 50))
	require.Equal(t, store.Active, g.State)
	require.Equal(t, []string{"token.expiring: refresh_failing"}, reasons(t, g))
	require.Greater(t, c.Now().Sub(t0), 10*hour, "slowly")
	require.Equal(t, 1, play(t, g, c, refusals["rejected"], 1))
	require.Equal(t, store.Active, g.State)
	require.Equal(t, []string{"token.expiring: refresh_failing", "token.expiring: rejected"}, reasons(t, g))
	play(t, g, c, refusals["rejected"], 10)
	require.Equal(t, store.Expired, g.State)
}

// A refusal for legal reasons is told once, and tried again no more than once an hour.
func TestLegalReasons(t *testing.T) {
	c := newClock(t0.Add(10 * time.Minute))
	g := newGrant(func(g *store.Grant) { g.Access, g.Refresh = lasting(t0, 3*hour), endless(t0) })
	require.Equal(t, 30, play(t, g, c, refresher.Failure{Class: refresher.Unlawful, Reason: events.ReasonLegal}, 30))
	require.Equal(t, store.Active, g.State)
	require.Zero(t, g.Attempts)
	require.Equal(t, []string{"token.expiring: unavailable_for_legal_reasons"}, reasons(t, g))
	require.Greater(t, c.Now().Sub(t0), 20*day, "not hammered")
}

// A grant keeps what its last refresh failed for, and events about failures tell it.
func TestTheLastErrorIsKept(t *testing.T) {
	g := newGrant()
	f := refusals["rejected"]
	f.Detail, f.ErrorType, f.ErrorHash = "HTTP 400, status badRequest", "badRequest", "5f3a"
	failed(t, g, 0, &f)
	require.Equal(t, store.Failing{Since: sentAt, At: sentAt, Why: "dead", Detail: f.Detail, Type: "badRequest", Hash: "5f3a"}, *g.Failing)
	for reason, want := range map[events.Reason]string{
		events.ReasonRejected: "badRequest", events.ReasonRefreshFailing: "badRequest", events.ReasonOutcomeLost: "badRequest",
		events.ReasonDisconnected: "", events.ReasonReplaced: "", events.ReasonRefreshTokenExpiring: "", "": "",
	} {
		require.Equal(t, want, g.Lifecycle(reason).ErrorType, "%q", reason)
	}
	told := announced(t, g)
	require.Equal(t, "5f3a", told[0].Data.ErrorHash)
	failed(t, g, 0, &refresher.Failure{Class: refresher.Transient, Detail: "HTTP 503"})
	require.Equal(t, "HTTP 503", g.Failing.Detail)
	require.Empty(t, g.Failing.Type)
}

func TestReviving(t *testing.T) {
	expired := func(reason events.Reason, change ...func(*store.Grant)) *store.Grant {
		return newGrant(append(change, func(g *store.Grant) {
			g.State, g.Reason, g.PurgeAt, g.Warned = store.Expired, reason, new(t0.Add(7*day)), reason
			g.Sealed.Data = []byte("sealed")
		})...)
	}
	c := newClock(t0.Add(2 * day))
	for _, reason := range []events.Reason{
		events.ReasonRejected, events.ReasonNotFound, events.ReasonBadRequest, events.ReasonOutcomeLost, events.ReasonMFARequired,
		events.ReasonRefreshTokenExpired, events.ReasonUnreadable,
	} {
		for name, refresh := range map[string]*store.Lifetime{"living": lasting(t0, 90*day), "ended": lasting(t0, day), "forgotten": nil, "endless": endless(t0)} {
			t.Run(fmt.Sprint(reason, ", its refresh token ", name), func(t *testing.T) {
				g := expired(reason, func(g *store.Grant) { g.Refresh = refresh })
				require.Empty(t, refresher.ReviveBlocked(g, c.Now()))
				s := punctual(c, 0)
				refresher.Revive(g, c.Now())
				require.Equal(t, store.Active, g.State)
				require.Nil(t, g.PurgeAt)
				require.Equal(t, store.Due{At: c.Now(), Action: store.Refresh}, *g.Due)
				require.True(t, g.Outbox.Schedule)
				require.True(t, refresher.NeedsCall(g, c.Now()), "it is tried")
				require.Empty(t, refresher.RefreshBlocked(withoutUnknown(g), c.Now()))
				f := refusals["rejected"]
				require.NoError(t, s.ApplyFailure(g, &f))
				require.Equal(t, store.Expired, g.State, "once")
			})
		}
	}
	for want, g := range map[string]*store.Grant{
		"the grant has not expired: it is active":                                               newGrant(),
		"the grant is revoked (disconnected): its tokens are gone; the user must connect again": newGrant(func(g *store.Grant) { g.State = store.Revoked }),
		"its tokens are gone, since retention.expired is over; the user must connect again":     expired(events.ReasonRejected, func(g *store.Grant) {}),
		"it never had a refresh token; the user must connect again":                             expired(events.ReasonNoRefreshToken, func(g *store.Grant) { g.Refresh = nil }),
	} {
		now := t0
		if g.Reason == events.ReasonRejected {
			now = *g.PurgeAt
		}
		require.Equal(t, want, refresher.ReviveBlocked(g, now))
	}
}

// A grant that was refused and has no known end is not stuck: an operator can have it
// tried, and a report of its token is its end.
func TestARefusedGrantWithoutAKnownEnd(t *testing.T) {
	for reason, f := range refusals {
		t.Run(reason, func(t *testing.T) {
			c := newClock(t0.Add(10 * time.Minute))
			g := newGrant(func(g *store.Grant) {
				g.Access, g.Accounts[0].ExpiresAt, g.Sealed.Data = endless(t0), nil, []byte("sealed")
			})
			require.False(t, refresher.EndsWithReport(g, c.Now()), "it can be refreshed")
			play(t, g, c, f, 10)
			require.Equal(t, store.MustAct, g.State)
			require.Nil(t, g.Due)
			require.Contains(t, refresher.RefreshBlocked(g, c.Now()), "it can be revived")

			s := settler(c, 0)
			require.Empty(t, refresher.ReviveBlocked(g, c.Now()))
			refresher.Revive(g, c.Now())
			require.Equal(t, store.Due{At: c.Now(), Action: store.Refresh}, *g.Due)
			require.True(t, refresher.NeedsCall(g, c.Now()))
			again := f
			require.NoError(t, s.ApplyFailure(g, &again))
			require.Equal(t, store.MustAct, g.State, "served as before")

			require.True(t, refresher.EndsWithReport(g, c.Now()))
			s.EndAccess(g)
			_, err := s.WithoutRefresh(g)
			require.NoError(t, err)
			require.Equal(t, store.Expired, g.State)
			require.Equal(t, []string{"token.expiring: " + reason, "token.expired: " + reason}, reasons(t, g))
			require.Empty(t, refresher.ReviveBlocked(g, c.Now()))
		})
	}
	waiting := newGrant(func(g *store.Grant) {
		g.State, g.Access, g.Refusals, g.MFA = store.MustAct, endless(t0), &store.Refusals{}, &store.MFA{Until: t0.Add(hour)}
	})
	require.NotEmpty(t, refresher.ReviveBlocked(waiting, t0), "a code of its user completes it")
	require.False(t, refresher.EndsWithReport(waiting, t0))
}

func withoutUnknown(g *store.Grant) *store.Grant {
	g = g.Clone()
	g.Unknown = nil
	return g
}

// What went along without need may be what is refused, too: it is left out before the
// refusal counts. Neither is tried for ever.
func TestWhatWentAlongWithoutNeedIsLeftOut(t *testing.T) {
	for reason, f := range refusals {
		g := newGrant(func(g *store.Grant) { g.Refresh = lasting(t0.Add(-89*day), 89*day+time.Hour) })
		require.True(t, policy().RenewsAt(g, sentAt))
		asked := f
		asked.AskedForRefreshToken = true
		failed(t, g, 1, &asked)
		require.Equal(t, store.Due{At: sentAt, Action: store.Refresh}, *g.Due, reason)
		require.False(t, policy().RenewsAt(g, sentAt), reason)
		require.Nil(t, g.Refusals, reason)
		require.Zero(t, g.Attempts, reason)
		require.NotContains(t, reasons(t, g), "token.expiring: "+reason)
		failed(t, g, 1, &f)
		require.Equal(t, 1, g.Refusals.Times, reason)
		require.Contains(t, reasons(t, g), "token.expiring: "+reason)
	}

	g := newGrant(func(g *store.Grant) { g.SendAccess = true })
	with := refresher.Failure{Class: refresher.BadRequest, Reason: events.ReasonBadRequest, AccessTokenUnwanted: true}
	without := refresher.Failure{Class: refresher.BadRequest, Reason: events.ReasonBadRequest, AccessTokenMissing: true}
	failed(t, g, 1, &with)
	require.False(t, g.SendAccess)
	require.Equal(t, store.Due{At: sentAt, Action: store.Refresh}, *g.Due)
	require.Empty(t, reasons(t, g))
	failed(t, g, 1, &without)
	require.False(t, g.SendAccess)
	require.Equal(t, 1, g.Refusals.Times)
	require.Equal(t, []string{"token.expiring: bad_request"}, reasons(t, g))
}
