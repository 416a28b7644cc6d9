package refresher

import (
	"context"
	"fmt"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// RefreshBlocked says why a grant can't be refreshed before it is due; empty when it can.
func RefreshBlocked(g *store.Grant, now time.Time) string {
	switch {
	case GivenUp(g):
		return fmt.Sprintf("its refresh token was refused (%s); it can be revived, which presents the token once more", g.Reason)
	case g.State == store.MustAct:
		return fmt.Sprintf("the user must act first (%s)", g.Reason)
	case g.State == store.Expired:
		return fmt.Sprintf("the grant has expired (%s); the user must connect again", g.Reason)
	case g.State == store.Revoked:
		return "the grant is revoked"
	case g.Refresh == nil:
		return "the grant has no refresh token"
	case RefreshTokenExpired(g, now):
		return "the refresh token has ended"
	case g.Unknown != nil:
		// Presented at the wrong time it would only hasten the end.
		return "the outcome of the last refresh is unknown; tries after it have their own times"
	case g.Lease.Valid(now):
		return "a worker is refreshing the grant"
	}
	return ""
}

// RefreshNow has any free worker do a grant's next action now, by bringing its schedule
// forward. Where nothing is due, since no token has a known end, it stores a refresh
// that is due now; store.ErrConflict: the grant has changed since it was read.
func (d *Dispatcher) RefreshNow(ctx context.Context, g *store.Grant) error {
	if g.Due == nil {
		g = g.Clone()
		g.Due = due(d.options.Now(), store.Refresh)
		if err := d.options.Store.Save(ctx, g); err != nil {
			return err
		}
	}
	return d.Postpone(ctx, dueMessage(g), d.options.Now())
}

func dueMessage(g *store.Grant) events.RefreshDue {
	m := events.RefreshDue{
		GrantID: g.ID, BrokerType: g.BrokerType, Version: g.Version, DueAt: g.Due.At,
		Idle: g.Idle(), Unknown: g.Unknown != nil, Call: NeedsCall(g, g.Due.At),
	}
	if g.Access != nil && g.Access.ExpiresAt != nil {
		m.ExpiresAt = *g.Access.ExpiresAt
	}
	return m
}
