package refresher

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// Reconciler brings about what the stored grants say should be: it finishes
// what a crash, a lost message or a wiped broker left undone. Every worker runs
// one; none leads, since each step may be done twice.
type Reconciler struct {
	Refresher *Refresher
	Config    config.Reconcile
	// Horizon is how far ahead schedules are put into the stream.
	Horizon time.Duration
	// Identities makes sure that the streams exist and returns the identities of
	// the schedule streams, in the order of the partitions.
	Identities func(ctx context.Context) ([]string, error)
	// Backlog returns the number of refresh.due messages not yet handled.
	Backlog func(ctx context.Context) (int, error)

	// after is where the walk over overdue grants goes on, so that a page of
	// grants that stay overdue does not hide the rest.
	after time.Time
	// more: the last pass left something undone for being too much.
	more bool
}

// maxPages bounds the work of one step in one pass, atOnce how many grants of a
// page are worked on at once: most of the time is waiting for answers.
const (
	maxPages = 20
	atOnce   = 8
)

// A step may take so many intervals, of which each counts as long as minInterval.
const (
	stepIntervals = 10
	minInterval   = time.Second
)

// Start learns in which stream schedules lie. It must come before any other
// work.
func (r *Reconciler) Start(ctx context.Context) error { return r.streams(ctx) }

// Run reconciles at once and then at intervals until ctx ends. Intervals vary
// by a quarter, so that workers started together spread.
func (r *Reconciler) Run(ctx context.Context) {
	for {
		start := r.Refresher.now()
		switch err := r.Pass(ctx); {
		case err == nil:
			r.Refresher.metrics.passes.WithLabelValues(passOK).Inc()
		case ctx.Err() == nil:
			r.Refresher.metrics.passes.WithLabelValues(passFailed).Inc()
			r.Refresher.log.Error("reconciliation failed; the next pass goes on", zap.Error(err))
		}
		r.Refresher.log.Debug("reconciled", zap.Duration("took", r.Refresher.now().Sub(start)))
		select {
		case <-time.After(r.pause()):
		case <-ctx.Done():
			return
		}
	}
}

// pause is the time until the next pass: short where the last left much undone.
func (r *Reconciler) pause() time.Duration {
	pause := time.Duration(float64(r.Config.Interval) * (0.75 + rand.Float64()/2))
	if r.more {
		return pause / 10
	}
	return pause
}

// Pass does one round of every step. Steps are independent: one that fails
// does not keep the others from running.
func (r *Reconciler) Pass(ctx context.Context) error {
	r.more = false
	if err := r.bounded(ctx, r.streams); err != nil {
		return err // without streams nothing can be sent
	}
	var failed error
	for _, step := range []func(context.Context) error{r.unsent, r.unscheduled, r.overdue, r.purge} {
		failed = errors.Join(failed, r.bounded(ctx, step))
	}
	return failed
}

// errBound: a step was cut short.
var errBound = errors.New("a step took too long; the next pass goes on")

// bounded runs a step, and cuts it short where it takes many times the interval:
// whatever hangs there must not keep the other steps from running. The step's
// context has no deadline, so that its calls keep their own bounds, which are
// shorter.
func (r *Reconciler) bounded(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(max(r.Config.Interval, minInterval)*stepIntervals, func() { cancel(errBound) })
	defer timer.Stop()
	err := step(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errBound) {
		return errors.Join(errBound, err)
	}
	return err
}

// streams tells the dispatcher in which streams schedules lie now. Schedules in
// any other are made again. One that lies in another grant's partition, since
// how many there are has changed, is read like all of them and may stay.
func (r *Reconciler) streams(ctx context.Context) error {
	identities, err := r.Identities(ctx)
	if err == nil {
		r.Refresher.dispatcher.SetStreams(identities)
	}
	return err
}

func (r *Reconciler) unsent(ctx context.Context) error {
	return r.pages(ctx, "outbox", func() ([]*store.Grant, error) {
		return r.Refresher.store.Unsent(ctx, r.Refresher.now().Add(-r.Config.Slack), r.Config.Batch)
	}, func(g *store.Grant) error { return r.Refresher.dispatcher.Deliver(ctx, g) })
}

// unscheduled makes schedules that lie in no stream of now. After a loss there
// may be millions, and every worker makes some of them: each takes pages from
// here and there, among those that are due first.
func (r *Reconciler) unscheduled(ctx context.Context) error {
	w := r.Refresher
	skip := 0
	return r.pages(ctx, "schedule", func() ([]*store.Grant, error) {
		page, err := r.unscheduledPage(ctx, skip)
		if err == nil && len(page) < r.Config.Batch && skip > 0 {
			page, err = r.unscheduledPage(ctx, 0)
		}
		skip = rand.IntN(spreadPages) * r.Config.Batch
		return page, err
	}, func(g *store.Grant) error {
		if g.Outbox != nil && g.Outbox.Schedule {
			return nil // changed just now; if nobody publishes it, unsent does
		}
		w.settler.Schedule(g, g.Due)
		return w.dispatcher.Deliver(ctx, g)
	})
}

// spreadPages is over how many pages the workers spread. Passing over a page
// costs the database a walk over as many entries of an index.
const spreadPages = 64

// unscheduledPage lists a page of the grants that are scheduled in no stream of
// now, those of one stream after the other, in any order of these.
func (r *Reconciler) unscheduledPage(ctx context.Context, skip int) ([]*store.Grant, error) {
	w := r.Refresher
	streams, err := w.store.OtherStreams(ctx, w.dispatcher.Streams())
	if err != nil {
		return nil, err
	}
	rand.Shuffle(len(streams), func(i, j int) { streams[i], streams[j] = streams[j], streams[i] })
	var page []*store.Grant
	for _, stream := range streams {
		more, err := w.store.ScheduledIn(ctx, stream, w.now().Add(r.Horizon), skip, r.Config.Batch-len(page))
		if err != nil {
			return nil, err
		}
		if page = append(page, more...); len(page) >= r.Config.Batch {
			break
		}
	}
	return page, nil
}

// pages works through a list that gets shorter as it is worked on.
func (r *Reconciler) pages(ctx context.Context, kind string, list func() ([]*store.Grant, error), do func(*store.Grant) error) error {
	for range maxPages {
		page, err := list()
		if err != nil {
			return err
		}
		// Workers that got the same page begin in different places.
		rand.Shuffle(len(page), func(i, j int) { page[i], page[j] = page[j], page[i] })
		var group errgroup.Group
		group.SetLimit(atOnce)
		failures := make(chan error, len(page))
		for _, g := range page {
			group.Go(func() error {
				failures <- r.repair(ctx, kind, g, do)
				return nil
			})
		}
		_ = group.Wait()
		close(failures)
		var failed error
		for err := range failures {
			failed = errors.Join(failed, err)
		}
		if failed != nil || len(page) < r.Config.Batch {
			return failed
		}
	}
	r.more = true
	return nil
}

// repair does one grant of a page.
func (r *Reconciler) repair(ctx context.Context, kind string, g *store.Grant, do func(*store.Grant) error) error {
	same, err := r.unchanged(ctx, g)
	if err != nil || !same {
		return err
	}
	if err := do(g); err != nil {
		return err
	}
	r.Refresher.metrics.repaired.WithLabelValues(kind).Inc()
	return nil
}

// unchanged reports whether a grant is still as it was listed. A page takes a
// while to work through, and what was true of a grant at its beginning must
// not replace what is true by now.
func (r *Reconciler) unchanged(ctx context.Context, listed *store.Grant) (bool, error) {
	g, err := r.Refresher.store.Get(ctx, listed.ID)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// Another worker that has told all of it leaves the revision as it is.
	told := (g.Outbox == nil) != (listed.Outbox == nil) || g.Due != nil && listed.Due != nil && g.Due.Stream != listed.Due.Stream
	return g.Rev == listed.Rev && !told, nil
}

// overdue makes the schedule of grants again whose time has passed without
// anybody taking a lease: a message was lost. Where messages still wait to be
// handled, or are put off, they are late, not lost; and each repetition doubles
// the time until the next.
func (r *Reconciler) overdue(ctx context.Context) error {
	w := r.Refresher
	now := w.now()
	before := now.Add(-r.Config.Slack)
	backlog, err := r.Backlog(ctx)
	if err != nil {
		return err
	}
	for range maxPages {
		page, err := w.store.Overdue(ctx, r.after, before, r.Config.Batch)
		if err != nil {
			return err
		}
		for _, g := range page {
			r.after = g.Due.At
			wait := r.Config.Slack << min(g.Due.Pokes, 8)
			if g.Lease.Live(now) || now.Before(g.Due.PokedAt.Add(wait)) || backlog > 0 && g.Due.Pokes == 0 && now.Before(g.Due.At.Add(8*r.Config.Slack)) {
				continue
			}
			scheduled, putOff, err := r.scheduled(ctx, g)
			if err != nil {
				return err
			}
			if putOff {
				continue
			}
			if same, err := r.unchanged(ctx, g); err != nil {
				return err
			} else if !same {
				continue
			}
			w.checkAge(g, scheduled) // which is about to be replaced, and may know better
			w.settler.Schedule(g, g.Due)
			if err := w.dispatcher.Deliver(ctx, g); err != nil {
				return err
			}
			if err := w.store.Poked(ctx, g, now); err != nil {
				return err
			}
			w.metrics.repaired.WithLabelValues("overdue").Inc()
			w.log.Warn("a grant was overdue without a lease; its schedule is made again", zap.String("grant", g.ID), zap.Time("due", g.Due.At))
		}
		if len(page) < r.Config.Batch {
			r.after = time.Time{}
			return nil
		}
	}
	return nil
}

// scheduled returns the schedule that lies in the stream of a grant, the zero one
// if none does that can be read, and whether it says that the action at hand was
// put off and will come.
func (r *Reconciler) scheduled(ctx context.Context, g *store.Grant) (m events.RefreshDue, putOff bool, err error) {
	m, at, found, err := r.Refresher.dispatcher.Scheduled(ctx, g.ID)
	var invalid *events.InvalidError
	if errors.As(err, &invalid) {
		return events.RefreshDue{}, false, nil
	}
	if err != nil || !found {
		return events.RefreshDue{}, false, err
	}
	return m, at.After(r.Refresher.now()) && m.Version == g.Version && m.DueAt.Equal(g.Due.At), nil
}

func (r *Reconciler) purge(ctx context.Context) error {
	w := r.Refresher
	err := r.pages(ctx, "purge", func() ([]*store.Grant, error) {
		return w.store.Purgeable(ctx, w.now(), r.Config.Batch)
	}, func(g *store.Grant) error {
		err := w.store.Delete(ctx, g)
		if errors.Is(err, store.ErrConflict) {
			return nil
		}
		if err == nil {
			w.record(audit.Erased, audit.OutcomeRetention, g)
		}
		return err
	})
	return errors.Join(err, w.store.PurgeRevocations(ctx, w.now()), w.store.PurgeAuditHeads(ctx, w.now()))
}
