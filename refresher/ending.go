package refresher

import (
	"context"
	"errors"
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
	policy := w.settler.Policy
	return errors.Join(r.through(ctx, &r.endingWalk, "ending", func(ctx context.Context, after store.Place) (store.Page, error) {
		return w.store.Ending(ctx, w.now().Add(policy.ClockSkew+policy.Lead+2*r.look()), after, r.Config.Batch)
	}, r.announce), r.through(ctx, &r.accountsWalk, "accounts", func(ctx context.Context, after store.Place) (store.Page, error) {
		return w.store.AccountsDue(ctx, w.now(), after, r.Config.Batch)
	}, r.accounts))
}

// accounts does what is due about single accounts of a grant.
func (r *Reconciler) accounts(ctx context.Context, g *store.Grant) (done bool, err error) {
	w := r.Refresher
	if g.Apart || len(g.Earlier) == 0 { // to be split off, or just split off
		if err := w.changed(ctx, g.UserID); err != nil || g.Apart {
			return err == nil, err
		}
	}
	next := g.Clone()
	if g.State == store.Active || g.State == store.MustAct {
		err = w.settler.TellAccounts(next, w.now())
	} else {
		next.AccountsDue = nil // all of the grant has ended
	}
	if err != nil {
		return false, err
	}
	err = w.store.Save(ctx, next)
	if errors.Is(err, store.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	w.dispatcher.Send(ctx, next)
	w.metrics.repaired.WithLabelValues("accounts").Inc()
	return true, nil
}

// late reports whether a grant's access token ends before its next try can bring
// another, as far as the stored grant tells: that try has been due for a while, and
// nobody has begun it in time. (A grant may come due with little time left, or with
// no token to give: the while is there for what is on its way to its first refresh.)
func (r *Reconciler) late(g *store.Grant, now time.Time) bool {
	policy := r.Refresher.settler.Policy
	until, leased := g.Access.ServedUntil(policy.ClockSkew), g.Lease.Live(now)
	switch {
	case g.Due == nil || g.Access != nil && until == nil:
		return false
	case g.Due.At.After(now.Add(policy.ClockSkew)):
		return policy.EndsBefore(g, g.Due.At)
	case until == nil || !until.After(g.Due.At):
		while := r.Config.Slack
		if leased { // a try is under way
			while += policy.Lead
		}
		return !now.Before(g.Due.At.Add(while))
	case now.Before(g.Due.At.Add(min(r.Config.Slack, until.Sub(g.Due.At)/2))):
		return false
	}
	last := *policy.LastTry(g)
	if leased { // what is under way counts until the token is no longer handed out
		last = *until
	}
	return now.Add(2 * g.Access.Tenth(r.look())).After(last) // at the next look but one it would be too late
}

// announce announces what a grant is about to be without, if nobody has and it
// can't wait for another look.
func (r *Reconciler) announce(ctx context.Context, g *store.Grant) (told bool, err error) {
	w := r.Refresher
	now := w.now()
	next := g.Clone()
	before := 0
	if next.Outbox != nil {
		before = len(next.Outbox.Events)
	}
	switch {
	case NeedsCall(g, now):
		err = w.settler.AnnounceEnds(next, now, r.late(g, now))
	case g.State == store.Active && g.Lease == nil && g.Unknown == nil:
		_, err = w.settler.WithoutRefresh(next)
	}
	if err != nil || next.Outbox == nil || len(next.Outbox.Events) == before {
		return false, err
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
