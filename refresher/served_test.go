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

// servedPolicy is the policy of the default configuration, which knows how long
// tokens are handed out and how long a try takes.
func servedPolicy() refresher.Policy { return refresher.NewPolicy(config.Default()) }

func TestServedUntil(t *testing.T) {
	const skew = 10 * time.Second
	require.Nil(t, (*store.Lifetime)(nil).ServedUntil(skew))
	require.Nil(t, endless(t0).ServedUntil(skew))
	require.Equal(t, t0.Add(hour-skew), *lasting(t0, hour).ServedUntil(skew))
	require.Equal(t, t0.Add(18*time.Second), *lasting(t0, 20*time.Second).ServedUntil(skew), "no more than a tenth of the life")
	require.Equal(t, t0, *lasting(t0, 0).ServedUntil(skew))
	require.Equal(t, t0.Add(-hour), *lasting(t0, -hour).ServedUntil(skew), "a life that ended before it began")
}

func TestTheFirstTryComesInTimeWhateverTheMargin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := servedPolicy()
		p.AccessToken = margins(t, "access")
		p.ClockSkew = time.Duration(rapid.Int64Range(0, int64(hour)).Draw(t, "skew"))
		p.Lead = time.Duration(rapid.Int64Range(0, int64(hour)).Draw(t, "lead"))
		g := newGrant(func(g *store.Grant) {
			g.Access, g.Refresh = lives(t, "access"), endless(t0)
			g.Version = rapid.Int64().Draw(t, "version")
		})
		next := p.Next(g)
		if g.Access == nil {
			require.Equal(t, g.Refresh.Since, next.At, "at once")
		} else if next != nil {
			require.False(t, p.EndsBefore(g, next.At), "%s, when %s is the last moment", next.At, p.LatestAttempt(g))
		}
	})
}

// outcome is a failed try that is not the end, and how soon after it the next may
// come.
type outcome struct {
	failure refresher.Failure
	least   time.Duration
}

func outcomes(t *rapid.T) outcome {
	d := config.Default().Refresh
	after := time.Duration(rapid.SampledFrom([]int{0, 0, 1, 30, 600, 7200}).Draw(t, "retry after")) * time.Second
	switch rapid.IntRange(0, 3).Draw(t, "outcome") {
	case 0:
		return outcome{refresher.Failure{Class: refresher.Transient, RetryAfter: after}, max(after, d.Backoff.Min)}
	case 1:
		return outcome{refresher.Failure{Class: refresher.Transient, Ambiguous: true, RetryAfter: after}, max(after, d.Backoff.Min)}
	case 2:
		return outcome{refresher.Failure{Class: refresher.RateLimited, RetryAfter: after}, max(after, d.RateLimited.Min)}
	}
	return outcome{refresher.Failure{Class: refresher.Denied}, d.Credentials.Min}
}

// Whatever comes of tries, in any order: as long as there is time for one that
// keeps the grant served, one is planned; and where none is, that is announced,
// once, and before the access token is no longer handed out.
func TestAGrantIsTriedInTimeOrAnnounced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newClock(t0)
		s := punctual(c, rapid.Float64Range(0, 0.999).Draw(t, "chance"))
		seconds := time.Duration(rapid.IntRange(1, 7200).Draw(t, "life")) * time.Second
		g := newGrant(func(g *store.Grant) {
			g.Access = lasting(t0, seconds)
			g.Refresh = rapid.SampledFrom([]*store.Lifetime{endless(t0), lasting(t0, day), lasting(t0, 2*hour)}).Draw(t, "refresh")
		})
		g.Due = s.Policy.Next(g)
		last, served := *s.Policy.LatestAttempt(g), *g.Access.ServedUntil(s.Policy.ClockSkew)
		warned := false
		for range 60 {
			c.Set(store.Milli(g.Due.At.Add(time.Duration(rapid.Int64Range(0, int64(g.Access.AtMostTenth(s.Policy.Lead))).Draw(t, "took")))))
			if !refresher.NeedsCall(g, c.Now()) {
				return // what is due for it waits for no try
			}
			o := outcomes(t)
			require.NoError(t, s.ApplyFailure(g, &o.failure))
			if g.State != store.Active || g.Refresh == nil {
				return
			}
			if !c.Now().Add(o.least).After(last) {
				require.False(t, g.Due.At.After(last), "%+v at %s: a try at %s, when %s is the last moment", o.failure, c.Now(), g.Due.At, last)
			}
			require.Equal(t, warned || g.Due.At.After(last), g.Warned != "", "announced where no try comes in time, and only there")
			if g.Warned != "" && !warned {
				warned = true
				require.False(t, c.Now().After(served), "announced at %s, not handed out since %s", c.Now(), served)
			}
			require.False(t, g.Due.At.Before(store.Milli(c.Now())))
		}
		told := 0
		for _, e := range reasons(t, g) {
			if e == "token.expiring: refresh_failing" {
				told++
			}
		}
		require.LessOrEqual(t, told, 1)
	})
}

// A grant that was never given an access token is without one from its first
// failure on.
func TestAGrantWithoutAccessTokenIsAnnouncedAtItsFirstFailure(t *testing.T) {
	for _, class := range []refresher.Class{refresher.Transient, refresher.RateLimited, refresher.Denied} {
		g := newGrant(func(g *store.Grant) { g.Access = nil })
		for range 3 {
			failed(t, g, 0.5, &refresher.Failure{Class: class})
			require.Equal(t, []string{"token.expiring: refresh_failing"}, reasons(t, g), class)
		}
	}
}

func TestTheNextAccessTokenTakesTheAnnouncementBack(t *testing.T) {
	c := newClock(t0.Add(59*time.Minute + 30*time.Second))
	s, g, tokens := punctual(c, 0.5), newGrant(), newTokens("one")
	for version := range int64(3) {
		require.NoError(t, s.ApplyFailure(g, &refresher.Failure{Class: refresher.RateLimited, RetryAfter: hour}))
		require.NotEmpty(t, g.Warned)
		var err error
		tokens, err = s.ApplyAnswer(g, tokens, refresher.Answer{AccessToken: text(fmt.Sprint("access ", version)), ExpiresIn: hour}, false, version+2, c.Now())
		require.NoError(t, err)
		require.Empty(t, g.Warned)
		told := reasons(t, g)
		require.Equal(t, []string{"token.expiring: refresh_failing", "token.refreshed: "}, told[len(told)-2:])
		require.Len(t, told, 2*(int(version)+1))
		c.Advance(59*time.Minute + 40*time.Second)
	}
}

// refreshTokenWarnings plays the life of a grant whose refreshes go well, and
// returns when the end of its refresh token was announced.
func refreshTokenWarnings(t *testing.T, refresh *store.Lifetime, access time.Duration, answer func(now time.Time, renew bool) refresher.Answer, until time.Time) (at []time.Time) {
	t.Helper()
	c := newClock(t0)
	s, tokens := punctual(c, 0), newTokens("one")
	g := newGrant(func(g *store.Grant) { g.Access, g.Refresh = lasting(t0, access), refresh })
	g.Due = s.Policy.Next(g)
	for epoch := int64(2); g.Due != nil && g.Due.At.Before(until) && refresher.NeedsCall(g, g.Due.At); epoch++ {
		c.Set(g.Due.At)
		asked := s.Policy.RenewsAt(g, c.Now())
		g.Outbox = nil
		var err error
		tokens, err = s.ApplyAnswer(g, tokens, answer(c.Now(), asked), asked, epoch, c.Now())
		require.NoError(t, err)
		for _, told := range reasons(t, g) {
			if told == "token.expiring: "+string(events.ReasonRefreshTokenExpiring) {
				at = append(at, c.Now())
			}
		}
	}
	return at
}

// The end of a refresh token for good is announced by its own margin ahead, once.
func TestTheEndOfARefreshTokenIsAnnouncedAheadByItsMargin(t *testing.T) {
	kept := func(time.Time, bool) refresher.Answer {
		return refresher.Answer{AccessToken: text("access"), ExpiresIn: hour}
	}
	for name, life := range map[string]time.Duration{"a quarter": 90 * day, "a month": 30 * day, "a day": day, "hours": 5 * hour} {
		end := t0.Add(life)
		ahead := min(max(life/5, hour), 7*day)
		t.Run(name+", its end stated once", func(t *testing.T) {
			at := refreshTokenWarnings(t, lasting(t0, life), hour, kept, end)
			require.Len(t, at, 1)
			require.GreaterOrEqual(t, end.Sub(at[0]), ahead)
		})
		t.Run(name+", its end stated with each answer", func(t *testing.T) {
			at := refreshTokenWarnings(t, lasting(t0, life), hour, func(now time.Time, _ bool) refresher.Answer {
				a := kept(now, false)
				a.RefreshExpiresIn = end.Sub(now).Truncate(time.Second) // of which calls and roundings make a little less
				return a
			}, end)
			require.Len(t, at, 1)
			require.GreaterOrEqual(t, end.Sub(at[0]), ahead*9/10)
		})
	}
	for name, answer := range map[string]func(now time.Time, renew bool) refresher.Answer{
		"renewed when asked for": func(now time.Time, renew bool) refresher.Answer {
			a := kept(now, renew)
			if renew {
				a.RefreshToken, a.RefreshExpiresIn = text(fmt.Sprint("refresh ", now)), 30*day
			}
			return a
		},
		"renewed with every answer": func(now time.Time, renew bool) refresher.Answer {
			a := kept(now, renew)
			a.RefreshToken, a.RefreshExpiresIn = text(fmt.Sprint("refresh ", now)), 30*day
			return a
		},
		"kept, and its life longer with every answer": func(now time.Time, renew bool) refresher.Answer {
			a := kept(now, renew)
			a.RefreshExpiresIn = 30 * day
			return a
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.Empty(t, refreshTokenWarnings(t, lasting(t0, 30*day), hour, answer, t0.Add(120*day)))
		})
	}
	t.Run("an end that is only assumed", func(t *testing.T) {
		life := lasting(t0, 30*day)
		life.Assumed = true
		require.Empty(t, refreshTokenWarnings(t, life, hour, kept, t0.Add(60*day)))
	})
}

// Where renewals fail in passing, or none can be tried, half of the margin is
// left to do so before anybody is told.
func TestARefreshTokenWhoseRenewalFailsIsAnnounced(t *testing.T) {
	end := t0.Add(90 * day)
	for name, at := range map[string]struct {
		now  time.Time
		want []string
	}{
		"early in its margin": {end.Add(-6 * day), nil},
		"late in its margin":  {end.Add(-3 * day), []string{"token.expiring: refresh_token_expiring"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrant(func(g *store.Grant) { g.Access = endless(t0) })
			s := settler(newClock(at.now), 0)
			for range 3 {
				require.NoError(t, s.ApplyFailure(g, &refresher.Failure{Class: refresher.Transient}))
				require.Equal(t, at.want, reasons(t, g))
			}
		})
	}
}

// A refresh token that ended while tries failed leaves nothing to try: what the
// access token is still good for is settled then and there.
func TestAFailureAfterTheRefreshTokenEndedPlansNoTry(t *testing.T) {
	for name, c := range map[string]struct {
		access *store.Lifetime
		told   []string
		action store.Action
	}{
		"an access token that lives longer":  {lasting(t0, 2*hour), nil, store.Warn},
		"an access token about to end":       {lasting(t0, 51*time.Minute), []string{"token.expiring: refresh_token_expired"}, store.Expire},
		"an access token that has ended too": {lasting(t0, 49*time.Minute), []string{"token.expired: refresh_token_expired"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrant(func(g *store.Grant) { g.Access, g.Refresh = c.access, lasting(t0, 40*time.Minute) })
			failed(t, g, 1, &refresher.Failure{Class: refresher.Transient})
			require.Equal(t, c.told, reasons(t, g))
			if c.action == "" {
				require.Nil(t, g.Due)
			} else {
				require.Equal(t, c.action, g.Due.Action)
			}
		})
	}
}

// What was held back for an outcome that is unknown is tried while the access
// token is still handed out.
func TestTheLastTryAfterGraceComesWhileTheAccessTokenIsServed(t *testing.T) {
	g := newGrant(func(g *store.Grant) { g.Unknown = new(t0) })
	c := newClock(sentAt)
	s := punctual(c, 0)
	require.NoError(t, s.ApplyFailure(g, &refresher.Failure{Class: refresher.Transient, Ambiguous: true}))
	require.Equal(t, *s.Policy.LatestAttempt(g), g.Due.At)
	require.Equal(t, t0.Add(hour-config.Default().Worker.ClockSkew-s.Policy.Lead), g.Due.At)
	require.Empty(t, reasons(t, g))
}

// A renewal that comes due by NATS's clock asks for a new refresh token though ours
// is behind by what clocks may differ: else it would come due again at once.
func TestARenewalThatIsDueAsks(t *testing.T) {
	p := servedPolicy()
	g := newGrant(func(g *store.Grant) { g.Access = endless(t0) })
	g.Due = p.Next(g)
	require.Equal(t, store.Renew, g.Due.Action)
	for off, want := range map[time.Duration]bool{-2 * p.ClockSkew: false, -p.ClockSkew: true, -time.Millisecond: true, 0: true, p.ClockSkew: true} {
		require.Equal(t, want, p.RenewsAt(g, g.Due.At.Add(off)), off)
	}
	g.Due.Action = store.Refresh
	require.False(t, p.RenewsAt(g, g.Due.At.Add(-time.Millisecond)), "another refresh asks when its time has come")
	require.True(t, p.RenewsAt(g, g.Due.At))
}
