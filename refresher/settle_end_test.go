package refresher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// TestWithoutRefresh walks a grant through its last actions: now is when one
// is handled.
func TestWithoutRefresh(t *testing.T) {
	warnAt := policy().Next(newGrant(func(g *store.Grant) { g.Refresh = nil })).At
	for name, c := range map[string]struct {
		grant func(*store.Grant)
		now   time.Time
		done  bool
		state store.State
		told  []string
		due   *store.Due
	}{
		"a refresh is due": {func(*store.Grant) {}, sentAt, false, store.Active, nil, nil},
		"an assumed end of the refresh token declares nothing dead": {func(g *store.Grant) {
			g.Refresh = &store.Lifetime{Since: t0, ExpiresAt: new(t0.Add(time.Minute)), Assumed: true}
		}, sentAt.Add(hour), false, store.Active, nil, nil},
		"not yet time to warn": {
			func(g *store.Grant) { g.Refresh = nil }, warnAt.Add(-time.Second), true, store.Active, nil,
			&store.Due{At: warnAt, Action: store.Warn},
		},
		"time to warn": {
			func(g *store.Grant) { g.Refresh = nil }, warnAt, true, store.Active,
			[]string{"token.expiring: no_refresh_token"},
			&store.Due{At: t0.Add(hour), Action: store.Expire},
		},
		"warned, not yet the end": {
			func(g *store.Grant) { g.Refresh, g.Warned = nil, events.ReasonNoRefreshToken }, sentAt, true, store.Active, nil,
			&store.Due{At: t0.Add(hour), Action: store.Expire},
		},
		"warned, and the end": {
			func(g *store.Grant) { g.Refresh, g.Warned = nil, events.ReasonNoRefreshToken }, t0.Add(hour), true, store.Expired,
			[]string{"token.expired: no_refresh_token"},
			nil,
		},
		"nothing ever ends": {func(g *store.Grant) { g.Refresh, g.Access = nil, endless(t0) }, sentAt, true, store.Active, nil, nil},
		"only the refresh token is over": {
			func(g *store.Grant) { g.Refresh = lasting(t0, time.Minute) }, warnAt.Add(-time.Minute), true, store.Active, nil,
			&store.Due{At: warnAt, Action: store.Warn},
		},
		"both are over": {
			func(g *store.Grant) { g.Refresh = lasting(t0, time.Minute) }, t0.Add(hour), true, store.Expired,
			[]string{"token.expired: refresh_token_expired"},
			nil,
		},
		"over without ever an access token": {
			func(g *store.Grant) { g.Access, g.Refresh = nil, lasting(t0, time.Minute) }, sentAt, true, store.Expired,
			[]string{"token.expired: refresh_token_expired"},
			nil,
		},
		"the user must act and the end is not there": {func(g *store.Grant) {
			g.State, g.Reason, g.Warned = store.MustAct, events.ReasonMFARequired, events.ReasonMFARequired
		}, sentAt, true, store.MustAct, nil, &store.Due{At: t0.Add(hour), Action: store.Expire}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrant(c.grant)
			done, err := settler(newClock(c.now), 0).WithoutRefresh(g)
			require.NoError(t, err)
			require.Equal(t, c.done, done)
			require.Equal(t, c.state, g.State)
			require.Equal(t, c.told, reasons(t, g))
			if c.done {
				require.Equal(t, c.due, g.Due)
			} else {
				require.Equal(t, newGrant(c.grant), g, "untouched")
			}
		})
	}
}

func TestARefreshTokenThatEndsFirstIsToldAsTheReason(t *testing.T) {
	g := newGrant(func(g *store.Grant) { g.Refresh = lasting(t0, time.Minute) })
	c := newClock(t0.Add(2 * time.Minute))
	for g.State == store.Active {
		done, err := settler(c, 0).WithoutRefresh(g)
		require.NoError(t, err)
		require.True(t, done)
		if g.Due != nil {
			require.True(t, g.Due.At.After(c.Now()), "no action is due twice")
			c.Set(g.Due.At)
		}
	}
	require.Equal(t, []string{"token.expiring: refresh_token_expired", "token.expired: refresh_token_expired"}, reasons(t, g))
}
