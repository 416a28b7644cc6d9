package refresher

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// told tells what the refresh of an earlier delivery of a message brought, and
// reports whether nothing else is to be done: the version after that of the
// message exists, or the grant does not. Whoever made that version, its event
// has one id.
func (r *Refresher) told(ctx context.Context, m events.RefreshDue) (done bool, err error) {
	g, err := r.store.Get(ctx, m.GrantID)
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	if err != nil || g.Version <= m.Version || g.State == store.Revoked {
		return false, err
	}
	return true, r.dispatcher.Retell(ctx, r.settler.Announcer, g, m.Version+1, events.TokenRefreshed)
}

// reschedule makes good what an out of date message may hide: it can have
// replaced the schedule that is current.
func (r *Refresher) reschedule(ctx context.Context, m events.RefreshDue) error {
	g, err := r.store.Get(ctx, m.GrantID)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	r.checkAge(g, m)
	if !awaits(g, r.now()) {
		return nil
	}
	r.settler.Schedule(g, g.Due)
	r.dispatcher.Send(ctx, g)
	return nil
}

// awaits reports whether a grant's next action is still to come, and nobody is at
// it: its schedule can be made again without harm.
func awaits(g *store.Grant, now time.Time) bool {
	return g.Due != nil && g.Due.At.After(now) && !g.Lease.Live(now)
}

// checkAge says loudly when a grant is older than a schedule made for it.
func (r *Refresher) checkAge(g *store.Grant, scheduled events.RefreshDue) {
	if scheduled.Version <= g.Version {
		return
	}
	r.metrics.outdated.Inc()
	r.log.Error("a schedule is newer than the grant it was made for: the database was restored from an older copy, and refresh tokens in it may have been replaced since",
		zap.String("grant", g.ID), zap.Int64("scheduled", scheduled.Version), zap.Int64("stored", g.Version))
}

// arrived promises to tell what an attempt to store an answer left untold that
// seemed to fail: what it wrote is there, perhaps without an outbox.
func (r *Refresher) arrived(g *store.Grant) error {
	if g.Outbox != nil {
		return nil
	}
	r.settler.Schedule(g, g.Due)
	g.Outbox.Held = true
	return r.settler.Announce(g, events.TokenRefreshed, "")
}
