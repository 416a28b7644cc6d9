package refresher

import (
	"context"
	"errors"
	"maps"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/store"
)

// Whether the end of a grant's tokens has to be announced follows from the stored
// grant, whatever became of its messages: they may wait behind a breaker, a rate,
// a pause or a backlog, or be lost.

// looks is how many times in an interval of reconciliation grants are looked for
// whose access token ends.
const looks = 6

// watchEnds looks for such grants until ctx ends.
func (r *Reconciler) watchEnds(ctx context.Context) {
	for {
		if err := r.bounded(ctx, r.ending); err != nil && ctx.Err() == nil {
			r.Refresher.log.Error("announcing what ends failed; the next look goes on", zap.Error(err))
		}
		select {
		case <-time.After(r.look()):
		case <-ctx.Done():
			return
		}
	}
}

func (r *Reconciler) look() time.Duration { return r.Config.Interval / looks }

// ending announces the end of access tokens that no try will replace in time.
func (r *Reconciler) ending(ctx context.Context) error {
	if !r.endingMu.TryLock() {
		return nil // it is being done
	}
	defer r.endingMu.Unlock()
	w := r.Refresher
	r.forget(w.now())
	policy := w.settler.Policy
	return r.through(ctx, &r.endingWalk, "ending", func(ctx context.Context, after store.Place) (store.Page, error) {
		return w.store.Ending(ctx, w.now().Add(policy.ClockSkew+policy.Lead+2*r.look()), after, r.Config.Batch)
	}, r.announce)
}

// sighting is when a grant was first seen of which something has to be announced.
type sighting struct {
	version int64
	at      time.Time
}

// inSight reports whether a grant was seen like this at an earlier look. One that
// was stored a moment ago with a token that is over is on its way to its first
// refresh; nothing in it tells.
func (r *Reconciler) inSight(g *store.Grant, now time.Time) bool {
	r.sightMu.Lock()
	defer r.sightMu.Unlock()
	if r.sighted == nil {
		r.sighted = map[string]sighting{}
	}
	first, ok := r.sighted[g.ID]
	if !ok || first.version != g.Version {
		r.sighted[g.ID] = sighting{g.Version, now}
		return false
	}
	return !now.Before(first.at.Add(r.look()))
}

// forget drops the sightings that came to nothing.
func (r *Reconciler) forget(now time.Time) {
	r.sightMu.Lock()
	defer r.sightMu.Unlock()
	maps.DeleteFunc(r.sighted, func(_ string, s sighting) bool { return now.After(s.at.Add(10*r.look() + time.Minute)) })
}

// announce announces what a grant is about to be without, if nobody has and it
// can't wait for another look.
func (r *Reconciler) announce(ctx context.Context, g *store.Grant) (told bool, err error) {
	w := r.Refresher
	now := w.now()
	leased := g.Lease.Live(now)
	next := g.Clone()
	before := 0
	if next.Outbox != nil {
		before = len(next.Outbox.Events)
	}
	switch {
	case NeedsCall(g, now) && (!leased || g.Access != nil):
		// It takes two looks to announce it, and until then nobody may try. A try that
		// is under way may yet succeed.
		try := now.Add(2 * g.Access.Tenth(r.look()))
		if leased {
			try = try.Add(-g.Access.Tenth(w.settler.Policy.Lead))
		}
		err = w.settler.AnnounceEnds(next, now, try)
	case !NeedsCall(g, now) && g.State == store.Active && g.Lease == nil && g.Unknown == nil:
		_, err = w.settler.WithoutRefresh(next)
	}
	if err != nil || next.Outbox == nil || len(next.Outbox.Events) == before {
		return false, err
	}
	if !r.inSight(g, now) {
		return false, nil
	}
	err = w.store.Save(ctx, next)
	if errors.Is(err, store.ErrConflict) {
		return false, nil // whoever changed it knew better, or the next look does
	}
	if err != nil {
		return false, err
	}
	w.sendState(ctx, g, next)
	w.metrics.repaired.WithLabelValues("ending").Inc()
	return true, nil
}
