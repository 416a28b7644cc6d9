package refresher

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/streams"
)

// mayContain reports whether the message of a grant that was last scheduled for a time may
// still lie in the queue, so that another would only make that longer. Few messages are
// delivered and not handled yet, but one may be stuck: those behind it are left alone no
// longer than patience.
func mayContain(q streams.DueQueue, at time.Time, slack, patience time.Duration, now time.Time) bool {
	notBehind := func(head time.Time, late time.Duration) bool {
		return !head.IsZero() && (late > slack || !head.After(at.Add(slack)))
	}
	given := at
	if q.Unhandled.After(at) {
		given = q.Unhandled
	}
	return q.Unreadable || notBehind(q.Undelivered, q.UndeliveredLate) || notBehind(q.Unhandled, q.UnhandledLate) && now.Before(given.Add(patience))
}

// rescheduleAt is when a schedule made again comes due: at once where nothing waits, else
// after everything that waits. If the message was not lost after all, the grant's next
// schedule has replaced this one by then.
func rescheduleAt(q streams.DueQueue, at time.Time, slack time.Duration) time.Time {
	for _, head := range []time.Time{q.Undelivered, q.Unhandled} {
		if then := q.Now.Add(q.Now.Sub(head) + slack); !head.IsZero() && then.After(at) {
			at = then
		}
	}
	return at
}

// rescheduleOverdue makes the schedules of grants again that are due and that no worker has
// leased: a message was lost. Messages that still wait, or were postponed, are late, not
// lost. Each repetition doubles the time until the next.
func (r *Reconciler) rescheduleOverdue(ctx context.Context) error {
	w := r.refresher
	queues, err := r.streams.DueQueues(ctx) // one that can't be seen is no reason to leave the others
	return errors.Join(err, r.workThrough(ctx, &r.overdueWalk, "overdue", r.pages(w.deps.Store.Overdue, -r.config.Slack), func(ctx context.Context, g *store.Grant) (bool, error) {
		// Without an access token a grant is in no list of those that end.
		if done, err := r.announceEnd(ctx, g); done || err != nil {
			return done, err // the grant has changed by that: its schedule is for the next pass
		}
		queue := streams.DueQueue{Unreadable: true}
		if n := w.deps.Subjects.PartitionOf(g.ID); n < len(queues) {
			queue = queues[n]
		}
		return r.scheduleAgain(ctx, g, queue)
	}))
}

// scheduleAgain makes the schedule of one overdue grant again, if it was lost.
func (r *Reconciler) scheduleAgain(ctx context.Context, g *store.Grant, queue streams.DueQueue) (bool, error) {
	w := r.refresher
	now, slack := w.deps.Now(), r.config.Slack
	wait := slack << min(g.Due.Reschedules, 8)
	last := g.Due.At
	if g.Due.RescheduledAt.After(last) {
		last = g.Due.RescheduledAt
	}
	if g.Lease.Valid(now) || now.Before(g.Due.RescheduledAt.Add(wait)) || mayContain(queue, last, slack, 8*wait, now) {
		return false, nil
	}
	scheduled, postponed, err := r.storedSchedule(ctx, g)
	if err != nil || postponed {
		return false, err
	}
	same, err := r.unchanged(ctx, g)
	if err != nil || !same {
		return false, err
	}
	// The first worker to record it does it.
	err = w.deps.Store.RecordReschedule(ctx, g, now)
	if errors.Is(err, store.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	w.checkAge(g, scheduled) // which is about to be replaced, and may know better
	// It belongs to the trace in which the action was decided on.
	if err := w.deps.Dispatcher.Postpone(g.Due.Trace.Continue(ctx), dueMessage(g), rescheduleAt(queue, g.Due.At, slack)); err != nil {
		return false, err
	}
	w.metrics.repaired.WithLabelValues("overdue").Inc()
	w.deps.Log.Warn("a grant was overdue without a lease; rescheduling it", zap.String("grant", g.ID), zap.Time("due", g.Due.At))
	return true, nil
}

// storedSchedule returns the schedule of a grant in the stream, zero if there is none that can
// be read, and whether it postpones the action at hand.
func (r *Reconciler) storedSchedule(ctx context.Context, g *store.Grant) (m events.RefreshDue, postponed bool, err error) {
	m, at, found, err := r.refresher.deps.Dispatcher.Scheduled(ctx, g.ID)
	var invalid *events.InvalidError
	if errors.As(err, &invalid) {
		return events.RefreshDue{}, false, nil
	}
	if err != nil || !found {
		return events.RefreshDue{}, false, err
	}
	return m, at.After(r.refresher.deps.Now()) && m.Version == g.Version && m.DueAt.Equal(g.Due.At), nil
}
