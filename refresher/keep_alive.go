package refresher

import (
	"context"
	"errors"

	"github.com/latchkey/latchkey/store"
)

// keepAlive schedules refreshes that keep refresh tokens alive, for grants stored before
// their broker was configured so. All others were scheduled with their last refresh.
func (r *Reconciler) keepAlive(ctx context.Context) error {
	w := r.refresher
	least, some := w.deps.Settler.Policy.keepsAlive()
	if !some {
		return nil
	}
	return errors.Join(
		r.workThrough(ctx, &r.nothingDueWalk, "keep-alive", func(ctx context.Context, after store.Place) (store.Page, error) {
			return w.deps.Store.WithNothingDue(ctx, after, r.config.Batch)
		}, r.scheduleKeepAlive),
		r.workThrough(ctx, &r.dueLateWalk, "keep-alive", r.pages(w.deps.Store.DueAfter, least), r.scheduleKeepAlive))
}

// scheduleKeepAlive schedules the refresh that keeps a grant's refresh token alive, unless
// something is due before it.
func (r *Reconciler) scheduleKeepAlive(ctx context.Context, g *store.Grant) (bool, error) {
	w := r.refresher
	at := w.deps.Settler.Policy.keepAliveAt(g)
	if at == nil || g.Lease != nil || g.Due != nil && !at.Before(g.Due.At) || g.Attempts > 0 || g.Deferrals > 0 {
		return false, nil
	}
	next := g.Clone()
	if now := w.deps.Now(); at.Before(now) {
		at = &now // nobody could do it earlier, so it is not late
	}
	w.deps.Settler.Schedule(next, due(*at, store.Refresh))
	return r.save(ctx, "keep-alive", g, next)
}
