package refresher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

func TestWhyAGrantIsNotRefreshedOnDemand(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	past, future := now.Add(-time.Minute), now.Add(time.Minute)
	for want, change := range map[string]func(*store.Grant){
		"":                                       func(g *store.Grant) { g.Lease = &store.Lease{Until: past} },
		"the user must act first (mfa_required)": func(g *store.Grant) { g.State, g.Reason = store.MustAct, events.ReasonMFARequired },
		"the grant has expired (rejected); the user must connect again": func(g *store.Grant) { g.State, g.Reason = store.Expired, events.ReasonRejected },
		"the grant is revoked":             func(g *store.Grant) { g.State = store.Revoked },
		"the grant has no refresh token":   func(g *store.Grant) { g.Refresh = nil },
		"the refresh token has ended":      func(g *store.Grant) { g.Refresh.ExpiresAt = &past },
		"a worker is refreshing the grant": func(g *store.Grant) { g.Lease = &store.Lease{Until: future} },
		"the outcome of the last refresh is unknown; tries after it have their own times": func(g *store.Grant) { g.Unknown = &past },
	} {
		g := &store.Grant{State: store.Active, Refresh: &store.Lifetime{}, Due: &store.Due{At: future, Action: store.Refresh}}
		change(g)
		require.Equal(t, want, refresher.RefreshBlocked(g, now))
		g.Due = nil // nothing is due by itself: no reason why not
		require.Equal(t, want, refresher.RefreshBlocked(g, now))
	}
}
