package refresher

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// GivenUp reports whether a grant is no longer refreshed since its refresh token was
// refused, but served to the end of its access tokens.
func GivenUp(g *store.Grant) bool {
	return g.State == store.MustAct && g.Refusals != nil && g.MFA == nil
}

// ReviveBlocked says why a grant that ended can't be tried again; empty when it can.
func ReviveBlocked(g *store.Grant, now time.Time) string {
	switch {
	case g.State == store.Revoked:
		return fmt.Sprintf("the grant is revoked (%s): its tokens are gone; the user must connect again", cmp.Or(g.Reason, events.ReasonDisconnected))
	case g.State != store.Expired && !GivenUp(g):
		return fmt.Sprintf("the grant has not expired: it is %s", g.State)
	case len(g.Sealed.Data) == 0 || g.PurgeAt != nil && !now.Before(*g.PurgeAt):
		return "its tokens are gone, since retention.expired is over; the user must connect again"
	case g.Refresh == nil && g.Reason == events.ReasonNoRefreshToken:
		return "it never had a refresh token; the user must connect again"
	}
	return ""
}

// Revive has such a grant tried once more, at once: if its token is refused, the grant is
// what it was. A stated end of the refresh token counts for nothing.
func Revive(g *store.Grant, now time.Time) {
	now = store.Milli(now)
	g.State, g.Reason, g.PurgeAt, g.Lease = store.Active, "", nil, nil
	g.Attempts, g.Deferrals = 0, 0
	g.Refusals = &store.Refusals{At: now, Times: 1, Next: now} // the next refusal is the last
	switch {
	case g.Refresh == nil: // its lifetime had ended; the token is kept with the others
		g.Refresh = &store.Lifetime{Since: g.ConnectedAt}
	case g.Refresh.Expired(now):
		g.Refresh.Assumed = true
	}
	schedule(g, due(now, store.Refresh), now)
}

// Revive has any free worker try a grant once more that has expired or was given up. The error
// wraps store.ErrConflict where the grant has changed since it was read.
func (r *Refresher) Revive(ctx context.Context, g *store.Grant) (*store.Grant, error) {
	next := g.Clone()
	Revive(next, r.deps.Now())
	if err := r.deps.Store.Save(ctx, next); err != nil {
		return nil, err
	}
	r.deps.Dispatcher.Send(ctx, next)
	return next, nil
}
