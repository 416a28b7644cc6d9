package refresher

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// reschedule repeats the schedule of a grant, which an outdated message may have replaced.
func (r *Refresher) reschedule(ctx context.Context, m events.RefreshDue) error {
	g, err := r.deps.Store.Get(ctx, m.GrantID)
	if err != nil {
		return err
	}
	r.checkAge(g, m)
	if !dueLater(g, r.deps.Now()) {
		return nil
	}
	r.deps.Settler.Schedule(g, g.Due)
	r.deps.Dispatcher.Send(ctx, g)
	return nil
}

// matches reports whether a message is about what is due for a grant now.
func matches(g *store.Grant, m events.RefreshDue) bool {
	return g.Version == m.Version && (g.State == store.Active || g.State == store.MustAct) && g.Due != nil && g.Due.At.Equal(m.DueAt)
}

// dueLater reports whether a grant's next action is still to come and no worker is at it,
// so that its schedule can be made again without harm.
func dueLater(g *store.Grant, now time.Time) bool {
	return g.Due != nil && g.Due.At.After(now) && !g.Lease.Valid(now)
}

func (r *Refresher) checkAge(g *store.Grant, scheduled events.RefreshDue) {
	if scheduled.Version <= g.Version {
		return
	}
	r.metrics.outdated.Inc()
	r.deps.Log.Error("a schedule is newer than the grant it was made for: the database was restored from an older copy, and refresh tokens in it may have been replaced since",
		zap.String("grant", g.ID), zap.Int64("scheduled", scheduled.Version), zap.Int64("stored", g.Version))
}
