package refresher_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// failed settles a failure that comes to light at t0+50m, ten minutes before
// the access token of newGrant ends.
func failed(t require.TestingT, g *store.Grant, chance float64, f *refresher.Failure) {
	g.Lease = &store.Lease{Owner: "me", Until: t0.Add(day)}
	require.NoError(t, settler(newClock(sentAt), chance).ApplyFailure(g, f))
	require.Nil(t, g.Lease)
}

func TestTransientFailuresBackOffExponentially(t *testing.T) {
	g := newGrant(func(g *store.Grant) { g.Access = endless(t0) })
	for tries, want := range []int{2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900} {
		failed(t, g, 1, &refresher.Failure{Class: refresher.Transient})
		require.Equal(t, tries+1, g.Attempts)
		require.Equal(t, store.Due{At: sentAt.Add(time.Duration(want) * time.Second), Action: store.Refresh}, *g.Due)
	}
	require.Equal(t, store.Active, g.State, "goes on as long as the refresh token lives")
	require.Empty(t, announced(t, g))
}

func TestTransientDelayHasFullJitter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tries := rapid.IntRange(0, 100).Draw(t, "tries")
		chance := rapid.Float64Range(0, 0.999).Draw(t, "chance")
		asked := time.Duration(rapid.IntRange(0, 1000).Draw(t, "retry after")) * time.Second
		g := newGrant(func(g *store.Grant) { g.Access, g.Attempts = endless(t0), tries })
		failed(t, g, chance, &refresher.Failure{Class: refresher.Transient, RetryAfter: asked})
		whole := 15 * time.Minute
		if tries < 9 {
			whole = 2 * time.Second << tries
		}
		want := max(asked, time.Duration(chance*float64(whole)))
		require.WithinDuration(t, sentAt.Add(want), g.Due.At, time.Millisecond)
	})
}

func TestWaitsThatAreNobodysFailure(t *testing.T) {
	d := config.Default().Refresh
	for class, backoff := range map[refresher.Class]config.Backoff{refresher.RateLimited: d.RateLimited, refresher.Denied: d.Credentials} {
		t.Run(string(class), func(t *testing.T) {
			g := newGrant(func(g *store.Grant) { g.Attempts, g.Access = 4, endless(t0) })
			wait := backoff.Min
			for waits := range 12 {
				failed(t, g, 0, &refresher.Failure{Class: class})
				require.Equal(t, 4, g.Attempts)
				require.Equal(t, waits+1, g.Deferrals)
				require.Equal(t, sentAt.Add(wait), g.Due.At)
				wait = min(2*wait, backoff.Max)
			}
			failed(t, g, 0.5, &refresher.Failure{Class: class})
			require.Equal(t, sentAt.Add(backoff.Max+backoff.Max/8), g.Due.At, "jitter makes it longer, never shorter")
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	g := newGrant()
	failed(t, g, 0.4, &refresher.Failure{Class: refresher.RateLimited, RetryAfter: 100 * time.Second})
	require.Equal(t, sentAt.Add(110*time.Second), g.Due.At)
	failed(t, g, 0, &refresher.Failure{Class: refresher.RateLimited, RetryAfter: time.Second})
	require.Equal(t, sentAt.Add(10*time.Second), g.Due.At, "but never less than the backoff")
}

func TestRefusedCredentialsNeverExpireAGrant(t *testing.T) {
	for name, refresh := range map[string]*store.Lifetime{
		"no stated end": endless(t0),
		"alive":         lasting(t0, day),
		"assumed end":   {Since: t0, ExpiresAt: new(t0.Add(time.Minute)), Assumed: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrant(func(g *store.Grant) { g.Access, g.Refresh = lasting(t0, time.Minute), refresh })
			for range 100 {
				failed(t, g, 1, &refresher.Failure{Class: refresher.Denied})
			}
			require.Equal(t, store.Active, g.State)
			require.Equal(t, []string{"token.expiring: refresh_failing"}, reasons(t, g))
			require.Equal(t, store.Refresh, g.Due.Action)
		})
	}
}

func TestUserMustAct(t *testing.T) {
	f := &refresher.Failure{Class: refresher.MustAct, Reason: events.ReasonMFARequired}
	t.Run("the access token is served to its end", func(t *testing.T) {
		g := newGrant()
		failed(t, g, 0, f)
		require.Equal(t, store.MustAct, g.State)
		require.Equal(t, events.ReasonMFARequired, g.Reason)
		require.Equal(t, []string{"token.expiring: mfa_required"}, reasons(t, g))
		require.Equal(t, store.Due{At: t0.Add(hour), Action: store.Expire}, *g.Due)

		end := newClock(t0.Add(hour))
		done, err := settler(end, 0).WithoutRefresh(g)
		require.NoError(t, err)
		require.True(t, done)
		require.Equal(t, store.Expired, g.State)
		require.Equal(t, []string{"token.expiring: mfa_required", "token.expired: mfa_required"}, reasons(t, g))
	})
	t.Run("without end to the access token", func(t *testing.T) {
		g := newGrant(func(g *store.Grant) { g.Access = endless(t0) })
		failed(t, g, 0, f)
		require.Equal(t, store.MustAct, g.State)
		require.Nil(t, g.Due)
	})
	t.Run("nothing to serve, until the refresh token ends", func(t *testing.T) {
		g := newGrant(func(g *store.Grant) { g.Access = nil })
		failed(t, g, 0, f)
		require.Equal(t, store.MustAct, g.State)
		require.Equal(t, store.Due{At: t0.Add(90 * day), Action: store.Expire}, *g.Due)
	})
	t.Run("nothing to serve and no end", func(t *testing.T) {
		g := newGrant(func(g *store.Grant) { g.Access, g.Refresh = nil, endless(t0) })
		failed(t, g, 0, f)
		require.Equal(t, store.Expired, g.State)
		require.Equal(t, []string{"token.expiring: mfa_required", "token.expired: mfa_required"}, reasons(t, g))
	})
}

func TestALostAnswerIsTheReasonToldAtTheEnd(t *testing.T) {
	for reason, want := range map[events.Reason]events.Reason{
		events.ReasonRejected:            events.ReasonOutcomeLost,
		events.ReasonNotFound:            events.ReasonOutcomeLost,
		events.ReasonBadRequest:          events.ReasonOutcomeLost,
		events.ReasonRefreshTokenExpired: events.ReasonOutcomeLost,
		events.ReasonMFARequired:         events.ReasonMFARequired,
		events.ReasonNoRefreshToken:      events.ReasonNoRefreshToken,
		events.ReasonUnreadable:          events.ReasonUnreadable,
	} {
		g := newGrant()
		failed(t, g, 0, &refresher.Failure{Class: refresher.Transient, Ambiguous: true})
		require.Equal(t, sentAt, *g.Unknown)
		require.NoError(t, settler(newClock(sentAt.Add(time.Minute)), 0).Expire(g, reason))
		require.Equal(t, want, g.Reason)
	}
}

func TestUnknownIsSinceTheFirstLostAnswer(t *testing.T) {
	first := t0
	g := newGrant(func(g *store.Grant) { g.Unknown = &first })
	failed(t, g, 0, &refresher.Failure{Class: refresher.Transient, Ambiguous: true})
	require.Equal(t, first, *g.Unknown)

	sure := newGrant()
	failed(t, sure, 0, &refresher.Failure{Class: refresher.Transient})
	require.Nil(t, sure.Unknown)
}

func TestHoldPastGrace(t *testing.T) {
	grace := config.Default().Refresh.Grace
	for name, c := range map[string]struct {
		unknown time.Time
		access  *store.Lifetime
		want    time.Time
	}{
		"within grace: tries go on":                   {sentAt.Add(time.Second - grace), lasting(t0, hour), sentAt.Add(2 * time.Second)},
		"past grace: the access token is served out":  {sentAt.Add(-grace), lasting(t0, hour), t0.Add(hour)},
		"past grace, an access token without end":     {sentAt.Add(-grace), endless(t0), sentAt.Add(2 * time.Second)},
		"past grace, an access token that has ended":  {sentAt.Add(-grace), lasting(t0, time.Minute), sentAt.Add(2 * time.Second)},
		"past grace, and there never was one to hand": {sentAt.Add(-grace), nil, sentAt.Add(2 * time.Second)},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrant(func(g *store.Grant) { g.Unknown, g.Access = &c.unknown, c.access })
			failed(t, g, 1, &refresher.Failure{Class: refresher.Transient})
			require.Equal(t, c.want, g.Due.At)
		})
	}
}

func TestFailureOfAGrantThatHasEnded(t *testing.T) {
	for _, class := range []refresher.Class{refresher.Transient, refresher.RateLimited, refresher.Denied} {
		g := newGrant(func(g *store.Grant) { g.Access, g.Refresh = lasting(t0, time.Minute), lasting(t0, time.Minute) })
		failed(t, g, 1, &refresher.Failure{Class: class})
		require.Equal(t, store.Expired, g.State, class)
		require.Equal(t, []string{"token.expired: refresh_token_expired"}, reasons(t, g), class)
	}
}

func TestAsFailure(t *testing.T) {
	f := &refresher.Failure{Class: refresher.Dead}
	require.Same(t, f, refresher.AsFailure(errors.Join(errors.New("around"), f)))
	other := errors.New("other")
	wrapped := refresher.AsFailure(other)
	require.Equal(t, refresher.Transient, wrapped.Class)
	require.ErrorIs(t, wrapped, other)
}
