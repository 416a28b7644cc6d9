package refresher

import (
	"context"
	"errors"

	"github.com/latchkey/latchkey/store"
)

// keepAlive brings in refreshes that keep refresh tokens alive, for grants that were
// stored before their broker was configured so: nothing is due for them, or only
// later. All others have theirs from what was stored with their last refresh.
func (r *Reconciler) keepAlive(ctx context.Context) error {
	w := r.Refresher
	least, some := w.settler.Policy.keepsAlive()
	if !some {
		return nil
	}
	return errors.Join(
		r.through(ctx, &r.undueWalk, "keep-alive", func(ctx context.Context, after store.Place) (store.Page, error) {
			return w.store.Undue(ctx, after, r.Config.Batch)
		}, r.bringIn),
		r.through(ctx, &r.dueLateWalk, "keep-alive", func(ctx context.Context, after store.Place) (store.Page, error) {
			return w.store.DueAfter(ctx, w.now().Add(least), after, r.Config.Batch)
		}, r.bringIn))
}

// bringIn makes the refresh due that keeps a grant's refresh token alive, unless
// something is due before it.
func (r *Reconciler) bringIn(ctx context.Context, g *store.Grant) (bool, error) {
	w := r.Refresher
	at := w.settler.Policy.keepAliveAt(g)
	if at == nil || g.Lease != nil || g.Due != nil && !at.Before(g.Due.At) || g.Tries > 0 || g.Waits > 0 {
		return false, nil
	}
	next := g.Clone()
	if now := w.now(); at.Before(now) {
		at = &now // nobody could do it earlier, so it is not late
	}
	w.settler.Schedule(next, due(*at, store.Refresh))
	err := w.store.Save(ctx, next)
	if errors.Is(err, store.ErrConflict) {
		return false, nil // whoever changed it has derived what is due
	}
	if err != nil {
		return false, err
	}
	w.dispatcher.Send(ctx, next)
	w.metrics.repaired.WithLabelValues("keep-alive").Inc()
	return true, nil
}
