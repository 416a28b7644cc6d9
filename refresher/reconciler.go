package refresher

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/streams"
)

// Streams is what reconciliation needs of a *streams.Topology.
type Streams interface {
	// Identities makes sure that the streams exist and returns the identities of
	// the schedule streams, in the order of the partitions.
	Identities(ctx context.Context) ([]string, error)
	// DueQueues returns the state of the queues of due messages, by partition.
	DueQueues(ctx context.Context) ([]streams.DueQueue, error)
}

// Reconciler finishes what a crash, a lost message or a wiped broker left undone, by the
// stored grants. Every worker runs one; none leads, since each step may be done twice.
type Reconciler struct {
	refresher *Refresher
	config    config.Reconcile
	horizon   time.Duration
	streams   Streams

	// Where the walks through the lists stand.
	unsentWalk, overdueWalk, purgeWalk, endingWalk, accountsWalk, removalWalk, nothingDueWalk, dueLateWalk walk

	scheduleWalks map[string]*walk // by stream
	chainWalks    map[string]*walk // by fingerprint key
	endingMu      sync.Mutex       // for endingWalk and accountsWalk
	more          atomic.Bool      // there was too much for the last pass
}

// A step may take so many intervals, of which each counts at least minInterval.
const (
	stepIntervals = 10
	minInterval   = time.Second
)

// ReconcilerOptions for NewReconciler; all are required.
type ReconcilerOptions struct {
	Refresher *Refresher
	Config    config.Reconcile
	// Horizon is how far ahead schedules are put into the stream.
	Horizon time.Duration
	Streams Streams
}

// NewReconciler returns a Reconciler. Call Start before the worker receives messages, so that
// their schedules name a stream.
func NewReconciler(o ReconcilerOptions) (*Reconciler, error) {
	if err := options.Require("a reconciler", o, "Refresher", "Config", "Horizon", "Streams"); err != nil {
		return nil, err
	}
	return &Reconciler{refresher: o.Refresher, config: o.Config, horizon: o.Horizon, streams: o.Streams, overdueWalk: walk{inOrder: true}}, nil
}

// Run reconciles at once and then at intervals until ctx ends. Intervals vary by a
// quarter, so that workers started together spread. Ends and removals are looked for
// more often, beside the passes.
func (r *Reconciler) Run(ctx context.Context) {
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() { r.watch(ctx, r.announceEnding, "announcing what ends failed") })
	watch.Go(func() { r.watch(ctx, r.Removals, "removals at Mesh failed") }) // they wait for Mesh
	for ctx.Err() == nil {
		start := r.refresher.deps.Now()
		switch err := r.Pass(ctx); {
		case err == nil:
			r.refresher.metrics.passes.WithLabelValues(passOK).Inc()
		case ctx.Err() == nil:
			r.refresher.metrics.passes.WithLabelValues(passFailed).Inc()
			r.refresher.deps.Log.Error("reconciliation failed; the next pass retries", zap.Error(err))
		}
		r.refresher.deps.Log.Debug("reconciled", zap.Duration("took", r.refresher.deps.Now().Sub(start)))
		_ = pause.For(ctx, r.untilNextPass()) // the loop sees that ctx has ended
	}
}

// untilNextPass is the time until the next pass, short where there was too much for the last.
func (r *Reconciler) untilNextPass() time.Duration {
	interval := time.Duration(float64(r.config.Interval) * (0.75 + rand.Float64()/2))
	if r.more.Load() {
		return interval / 10
	}
	return interval
}

// Pass runs every step once, also after one has failed.
func (r *Reconciler) Pass(ctx context.Context) error {
	r.more.Store(false)
	if err := r.bounded(ctx, r.Start); err != nil {
		return err // without streams nothing can be sent
	}
	var failed error
	for _, step := range []func(context.Context) error{r.announceEnding, r.deliverUnsent, r.restoreSchedules, r.rescheduleOverdue, r.keepAlive, r.purge, r.makeChains, r.refresher.verdicts.updateMetrics} {
		failed = errors.Join(failed, r.bounded(ctx, step))
	}
	return failed
}

// errBound: a step was cut short.
var errBound = errors.New("a step timed out; the next pass continues it")

// bounded runs a step and cuts it short after many intervals, so that the others run. The
// step's context has no deadline: its calls have shorter bounds of their own.
func (r *Reconciler) bounded(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(max(r.config.Interval, minInterval)*stepIntervals, func() { cancel(errBound) })
	defer timer.Stop()
	err := step(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errBound) {
		return errors.Join(errBound, err)
	}
	return err
}

// Start finds the streams in which schedules lie now, as every pass does. Schedules in any
// other are made again. One in the wrong partition, since their number has changed, may stay.
func (r *Reconciler) Start(ctx context.Context) error {
	identities, err := r.streams.Identities(ctx)
	if err == nil {
		r.refresher.deps.Dispatcher.SetStreams(identities)
	}
	return err
}

func (r *Reconciler) deliverUnsent(ctx context.Context) error {
	w := r.refresher
	return r.workThrough(ctx, &r.unsentWalk, "outbox", r.pages(w.deps.Store.Unsent, -r.config.Slack), r.ifUnchanged("outbox", func(ctx context.Context, g *store.Grant) error {
		if !w.mayBeUnresolved(g) {
			return w.deps.Dispatcher.Deliver(ctx, g)
		}
		// No event is published about what turns out to be no grant of its own.
		var leased *store.LeasedError
		if err := w.deps.Resolve(ctx, g.UserID); err != nil && !errors.As(err, &leased) {
			return err
		}
		if same, err := r.unchanged(ctx, g); err != nil || !same {
			return err
		}
		return w.deps.Dispatcher.Deliver(ctx, g)
	}))
}

// restoreSchedules makes the schedules that lie in none of the present streams, stream by
// stream in random order. After a loss there may be millions, and every worker makes
// some: each takes pages from here and there, among those that are due first.
func (r *Reconciler) restoreSchedules(ctx context.Context) error {
	w := r.refresher
	identities, err := w.deps.Store.OtherStreams(ctx, w.deps.Dispatcher.Streams())
	if err != nil {
		return err
	}
	walks := make(map[string]*walk, len(identities))
	for _, stream := range identities {
		if walks[stream] = r.scheduleWalks[stream]; walks[stream] == nil {
			walks[stream] = &walk{spread: true}
		}
	}
	r.scheduleWalks = walks
	rand.Shuffle(len(identities), func(i, j int) { identities[i], identities[j] = identities[j], identities[i] })
	left := maxPages
	for _, stream := range identities {
		at := walks[stream]
		at.left = &left
		err = errors.Join(err, r.workThrough(ctx, at, "schedule", func(ctx context.Context, after store.Place) (store.Page, error) {
			return w.deps.Store.ScheduledIn(ctx, stream, w.deps.Now().Add(r.horizon), after, at.skip*r.config.Batch, r.config.Batch)
		}, r.ifUnchanged("schedule", func(ctx context.Context, g *store.Grant) error {
			if g.Outbox != nil && g.Outbox.Schedule {
				return nil // changed just now; if nobody publishes it, unsent does
			}
			w.deps.Settler.Schedule(g, g.Due)
			return w.deps.Dispatcher.Deliver(ctx, g)
		})))
	}
	return err
}

// unchanged reports whether a grant is still as it was listed: a page takes a while, and
// what was true at its beginning must not replace what is true by now.
func (r *Reconciler) unchanged(ctx context.Context, listed *store.Grant) (bool, error) {
	g, err := r.refresher.deps.Store.Get(ctx, listed.ID)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return g.Unchanged(listed), nil
}

func (r *Reconciler) purge(ctx context.Context) error {
	w := r.refresher
	err := r.workThrough(ctx, &r.purgeWalk, "purge", r.pages(w.deps.Store.Purgeable, 0), r.ifUnchanged("purge", func(ctx context.Context, g *store.Grant) error {
		if err := w.deps.Dispatcher.Deliver(ctx, g); err != nil { // its events would go with the record
			return err
		}
		if _, err := w.Tokens(ctx, g); g.HasLeftovers && errors.Is(err, envelope.ErrKMS) {
			return err
		} else if g.HasLeftovers && err == nil {
			if g = w.ParkLeftovers(ctx, g); g.HasLeftovers {
				return nil // the next pass
			}
		}
		err := w.deps.Store.Delete(ctx, g)
		if errors.Is(err, store.ErrConflict) {
			return nil
		}
		if err == nil {
			w.record(audit.Erased, audit.OutcomeRetention, g)
		}
		return err
	}))
	return errors.Join(err, w.deps.Store.PurgeRevocations(ctx, w.deps.Now()), w.deps.Store.PurgeAuditHeads(ctx, w.deps.Now()))
}
