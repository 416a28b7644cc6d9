package refresher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// plainPolicy has margins without jitter, so that moments can be told exactly.
func plainPolicy() refresher.Policy {
	p := policy()
	p.AccessToken.Jitter, p.RefreshToken.Jitter = 0, 0
	return p
}

func TestNextAction(t *testing.T) {
	asked := t0.Add(80 * day)
	for name, c := range map[string]struct {
		change func(*store.Grant)
		action store.Action // "": nothing is ever due
		after  time.Duration
	}{
		"both tokens: a fifth before the access token ends": {func(*store.Grant) {}, store.Refresh, 48 * time.Minute},
		"a long access token: the largest margin before": {
			func(g *store.Grant) { g.Access = lasting(t0, 10*day) }, store.Refresh, 10*day - 30*time.Minute,
		},
		"a short access token: the least margin before": {
			func(g *store.Grant) { g.Access = lasting(t0, 4*time.Minute) }, store.Refresh, 3 * time.Minute,
		},
		"an access token of seconds: half of its life before": {
			func(g *store.Grant) { g.Access = lasting(t0, 10*time.Second) }, store.Refresh, 5 * time.Second,
		},
		"the refresh token ends first": {
			func(g *store.Grant) { g.Access, g.Refresh = lasting(t0, 100*day), lasting(t0, 10*day) }, store.Renew, 8 * day,
		},
		"an access token without end": {
			func(g *store.Grant) { g.Access = endless(t0) }, store.Renew, 83 * day,
		},
		"a renewal that brought nothing": {
			func(g *store.Grant) { g.Access, g.Refresh.RequestedAt = endless(t0), &asked }, store.Renew, 85 * day,
		},
		"nothing ends": {
			func(g *store.Grant) { g.Access, g.Refresh = endless(t0), endless(t0) }, "", 0,
		},
		"delayed: no access token yet": {
			func(g *store.Grant) { g.Access = nil }, store.Refresh, 0,
		},
		"delayed, and the refresh token has no end": {
			func(g *store.Grant) { g.Access, g.Refresh = nil, endless(t0) }, store.Refresh, 0,
		},
		"access token only: a warning": {
			func(g *store.Grant) { g.Refresh = nil }, store.Warn, 48 * time.Minute,
		},
		"access token only, warned: the end": {
			func(g *store.Grant) { g.Refresh, g.Warned = nil, "no_refresh_token" }, store.Expire, hour,
		},
		"access token only, without end": {
			func(g *store.Grant) { g.Refresh, g.Access = nil, endless(t0) }, "", 0,
		},
		"the user must act: the access token's end": {
			func(g *store.Grant) { g.State, g.Warned = store.MustAct, "mfa_required" }, store.Expire, hour,
		},
		"the user must act and was never given a token": {
			func(g *store.Grant) { g.State, g.Access = store.MustAct, nil }, store.Expire, 90 * day,
		},
		"expired": {func(g *store.Grant) { g.State = store.Expired }, "", 0},
		"revoked": {func(g *store.Grant) { g.State = store.Revoked }, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := plainPolicy().Next(newGrant(c.change))
			if c.action == "" {
				require.Nil(t, got)
				return
			}
			require.NotNil(t, got)
			require.Equal(t, store.Due{At: t0.Add(c.after), Action: c.action}, *got)
		})
	}
}

func TestBrokerMarginsReplaceTheGeneralOnes(t *testing.T) {
	p := plainPolicy()
	p.Brokers = map[string]config.BrokerPolicy{
		"early":   {AccessToken: &config.Margin{Share: 0.5, Max: day}},
		"renewer": {RefreshToken: &config.Margin{Share: 0.9, Max: 365 * day}},
	}
	for broker, want := range map[string]time.Duration{"early": 30 * time.Minute, "renewer": 48 * time.Minute, "coinbase": 48 * time.Minute} {
		require.Equal(t, t0.Add(want), p.Next(newGrant(func(g *store.Grant) { g.BrokerType = broker })).At, broker)
	}
	renewer := newGrant(func(g *store.Grant) { g.BrokerType, g.Access, g.Refresh = "renewer", endless(t0), lasting(t0, 100*day) })
	require.Equal(t, store.Due{At: t0.Add(50 * day), Action: store.Renew}, *p.Next(renewer), "never more than half of the life")
}

func TestGrantsOfABrokerAreKeptAlive(t *testing.T) {
	p := policy()
	p.Brokers = map[string]config.BrokerPolicy{"idle": {KeepAlive: 10 * day}}
	for name, c := range map[string]struct {
		change        func(*store.Grant)
		action        store.Action
		after, before time.Duration
	}{
		"nothing ends": {func(g *store.Grant) { g.Access, g.Refresh = endless(t0), endless(t0) }, store.Refresh, 9 * day, 10 * day},
		"a long access token": {
			func(g *store.Grant) { g.Access, g.Refresh = lasting(t0, 60*day), endless(t0) }, store.Refresh, 9 * day, 10 * day,
		},
		"only the refresh token ends": {func(g *store.Grant) { g.Access = endless(t0) }, store.Refresh, 9 * day, 10 * day},
		"its refresh token is older": {
			func(g *store.Grant) { g.Access, g.Refresh = endless(t0), endless(t0.Add(-365*day)) }, store.Refresh, 9 * day, 10 * day,
		},
		"a renewal comes first":            {func(g *store.Grant) { g.Access, g.Refresh = endless(t0), lasting(t0, 5*day) }, store.Renew, 0, 5 * day},
		"the access token ends first":      {func(*store.Grant) {}, store.Refresh, 0, hour},
		"written in another case":          {func(g *store.Grant) { g.BrokerType, g.Access, g.Refresh = "Idle", endless(t0), endless(t0) }, store.Refresh, 9 * day, 10 * day},
		"another broker":                   {func(g *store.Grant) { g.BrokerType, g.Access, g.Refresh = "other", endless(t0), endless(t0) }, "", 0, 0},
		"no refresh token to keep":         {func(g *store.Grant) { g.Access, g.Refresh = endless(t0), nil }, "", 0, 0},
		"its user must act":                {func(g *store.Grant) { g.State, g.Access = store.MustAct, endless(t0) }, "", 0, 0},
		"expired":                          {func(g *store.Grant) { g.State, g.Access = store.Expired, endless(t0) }, "", 0, 0},
		"nothing to hand out yet: at once": {func(g *store.Grant) { g.Access, g.Refresh = nil, endless(t0) }, store.Refresh, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			moments := map[time.Time]bool{}
			for version := range int64(10) {
				g := newGrant(func(g *store.Grant) { g.BrokerType, g.Version = "idle", version }, c.change)
				next := p.Next(g)
				require.Equal(t, next, p.Next(g.Clone()), "every worker derives the same")
				if c.action == "" {
					require.Nil(t, next)
					return
				}
				require.Equal(t, c.action, next.Action)
				require.False(t, next.At.Before(t0.Add(c.after)), next.At)
				require.False(t, next.At.After(t0.Add(c.before)), next.At)
				moments[next.At] = true
			}
			if c.before == 10*day {
				require.Len(t, moments, 10, "what was connected together spreads")
			}
		})
	}
}

func TestRenewalIsSoughtNoHotterThanOnceAMinute(t *testing.T) {
	p := policy()
	for name, assumed := range map[string]bool{"stated end": false, "assumed end": true} {
		t.Run(name, func(t *testing.T) {
			g := newGrant(func(g *store.Grant) { g.Access, g.Refresh.Assumed = endless(t0), assumed })
			end, until := *g.Refresh.ExpiresAt, *g.Refresh.ExpiresAt
			if assumed { // such a token is used past its end, and asked about ever more rarely
				until = end.Add(90 * day)
			}
			asks := 0
			for at := *p.RenewAt(g); at.Before(until); at = *p.RenewAt(g) {
				asks++
				require.Less(t, asks, 60, "looping at %s", at)
				if g.Refresh.RequestedAt != nil {
					require.GreaterOrEqual(t, at.Sub(*g.Refresh.RequestedAt), time.Minute)
				}
				g.Refresh.RequestedAt = &at
			}
			require.Greater(t, asks, 5, "the last days see several tries")
			if !assumed {
				require.Less(t, end.Sub(*g.Refresh.RequestedAt), 3*time.Minute, "tries go on to the end")
			}
		})
	}
}
