package refresher

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/store"
)

// Whether the end of a grant's tokens has to be announced follows from the stored
// grant, whatever became of its messages: they may wait behind a breaker, a rate,
// a pause or a backlog, or be lost.

// checksPerInterval is how many times in an interval of reconciliation ends are looked for.
const checksPerInterval = 6

// watch runs a step several times in an interval, apart from passes, until ctx ends.
func (r *Reconciler) watch(ctx context.Context, step func(context.Context) error, failed string) {
	for ctx.Err() == nil {
		if err := r.bounded(ctx, step); err != nil && ctx.Err() == nil {
			r.refresher.deps.Log.Error(failed+"; retrying at the next check", zap.Error(err))
		}
		_ = pause.For(ctx, r.checkInterval()) // the loop sees that ctx has ended
	}
}

func (r *Reconciler) checkInterval() time.Duration { return r.config.Interval / checksPerInterval }

// announceEnding announces the end of access tokens that no try will replace in time.
func (r *Reconciler) announceEnding(ctx context.Context) error {
	if !r.endingMu.TryLock() {
		return nil // another goroutine is at it
	}
	defer r.endingMu.Unlock()
	w := r.refresher
	policy := w.deps.Settler.Policy
	return errors.Join(
		r.workThrough(ctx, &r.endingWalk, "ending", r.pages(w.deps.Store.Ending, policy.ClockSkew+policy.Lead+2*r.checkInterval()), r.announceEnd),
		r.workThrough(ctx, &r.accountsWalk, "accounts", r.pages(w.deps.Store.AccountsDue, 0), r.announceAccounts))
}

func (r *Reconciler) announceAccounts(ctx context.Context, g *store.Grant) (done bool, err error) {
	w := r.refresher
	if g.HasSeparateRefreshTokens || len(g.OlderAccess) == 0 { // to be split off, or just split off
		if err := w.deps.Resolve(ctx, g.UserID); err != nil || g.HasSeparateRefreshTokens {
			return err == nil, err
		}
	}
	next := g.Clone()
	if g.State == store.Active || g.State == store.MustAct {
		err = w.deps.Settler.AnnounceAccounts(next, w.deps.Now())
	} else {
		next.AccountsDue = nil // all of the grant has ended
	}
	if err != nil {
		return false, err
	}
	return r.save(ctx, "accounts", g, next)
}

// save saves a change of a grant and announces it. False: the grant has changed since it
// was listed, and whoever changed it knew better, or the next check does.
func (r *Reconciler) save(ctx context.Context, kind string, g, next *store.Grant) (bool, error) {
	err := r.refresher.deps.Store.Save(ctx, next)
	if errors.Is(err, store.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	r.refresher.sendState(ctx, g, next)
	r.refresher.metrics.repaired.WithLabelValues(kind).Inc()
	return true, nil
}

// late reports whether, by the stored grant, its access token ends before the next try
// can bring another: that try has been due for a while, and no worker has begun it. (The
// while is for grants that come due with little time left, or without a token.)
func (r *Reconciler) late(g *store.Grant, now time.Time) bool {
	policy := r.refresher.deps.Settler.Policy
	until, leased := g.Access.ServedUntil(policy.ClockSkew), g.Lease.Valid(now)
	switch {
	case g.Due == nil || g.Access != nil && until == nil:
		return false
	case g.Due.At.After(now.Add(policy.ClockSkew)):
		return policy.EndsBefore(g, g.Due.At)
	case until == nil || !until.After(g.Due.At):
		while := r.config.Slack
		if leased { // a try is under way
			while += policy.Lead
		}
		return !now.Before(g.Due.At.Add(while))
	case now.Before(g.Due.At.Add(min(r.config.Slack, until.Sub(g.Due.At)/2))):
		return false
	}
	last := *policy.LatestAttempt(g)
	if leased { // what is under way counts until the token is no longer handed out
		last = *until
	}
	return now.Add(2 * g.Access.AtMostTenth(r.checkInterval())).After(last) // at the check after the next it would be too late
}

// announceEnd announces what a grant is about to be without, unless it is done or can wait.
func (r *Reconciler) announceEnd(ctx context.Context, g *store.Grant) (done bool, err error) {
	w := r.refresher
	now := w.deps.Now()
	next := g.Clone()
	switch {
	case NeedsCall(g, now):
		err = w.deps.Settler.AnnounceEnds(next, now, r.late(g, now))
	case g.State == store.Active && g.Lease == nil && g.Unknown == nil:
		_, err = w.deps.Settler.WithoutRefresh(next)
	}
	if err != nil || unpublished(next) == unpublished(g) {
		return false, err
	}
	return r.save(ctx, "ending", g, next)
}

// unpublished is how many events of a grant are not published yet.
func unpublished(g *store.Grant) int {
	if g.Outbox == nil {
		return 0
	}
	return len(g.Outbox.Events)
}
