// Package worker puts the parts together: it connects to NATS, MongoDB, KMS and Mesh,
// creates streams and indexes that are missing, runs until its context ends, and then
// finishes what is under way.
package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/operator"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/handlers/tokens"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/streams"
)

// Options for Run, besides the configuration.
type Options struct {
	Log     *zap.Logger
	Metrics *prometheus.Registry
	// Now is the clock (time.Now).
	Now func() time.Time
	// RequestTimeout bounds one request to JetStream (5 seconds).
	RequestTimeout time.Duration
	// Ready, if set, is called when the worker receives messages.
	Ready func()
}

// worker holds the parts of a running worker.
type worker struct {
	cfg config.Config
	log *zap.Logger
	reg *prometheus.Registry
	// work holds what reg says of refreshes. Reading it waits for nothing, while reading reg asks
	// whether MongoDB answers.
	work *prometheus.Registry
	now  func() time.Time
	nc   *nats.Conn
	js   jetstream.JetStream
	db   *store.Store
	subj events.Subjects
	// source is the CloudEvents source of what this installation publishes.
	source string
	// requestTimeout bounds one request to JetStream.
	requestTimeout time.Duration

	streams    *streams.Topology
	router     *handlers.Router
	subscriber *handlers.Subscriber
	tokens     *tokens.Service
	keys       *handlers.ConnectKeys
	envelope   *envelope.Envelope
	refresher  *refresher.Refresher
	membership *refresher.Membership
	dispatcher *refresher.Dispatcher
	reconciler *refresher.Reconciler
	grantStats *refresher.GrantStats
	audit      *audit.Log // nil: off
	letters    *handlers.DeadLetters
	page       *operator.Page
	kms        kmsState
	stopping   atomic.Bool
	// closed is closed when the connection to NATS is closed for good.
	closed chan struct{}
	// foreign takes the error that says that streams or database belong to another
	// installation, or are of no use.
	foreign chan error
	// ended is the reason why the worker can't work any more.
	ended  atomic.Pointer[string]
	traces *traces
}

// Run runs a worker until ctx ends, and then for up to the configured grace to finish
// what is under way. It returns nil after a clean stop.
func Run(ctx context.Context, cfg config.Config, o Options) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	log := o.Log.With(zap.String("worker", cfg.Worker.ID))
	traces, err := startTraces(cfg, log)
	if err != nil {
		return err
	}
	defer traces.stop()
	w := &worker{
		cfg: cfg, log: log, reg: o.Metrics, now: o.Now, traces: traces, subj: cfg.NATS.Subjects(),
		requestTimeout: cmp.Or(o.RequestTimeout, requestTimeout), closed: make(chan struct{}), foreign: make(chan error, 1),
	}
	defer w.disconnect()
	err = w.connect(ctx)
	if err == nil {
		err = w.assemble(ctx)
	}
	if err == nil {
		// The first pass of reconciliation has something to record already.
		w.audit.Start()
		defer w.stopAudit() // after everything else
		err = w.reconciler.Start(ctx)
	}
	if err != nil && ctx.Err() != nil {
		w.log.Info("stopped during startup", zap.Error(err))
		return nil
	}
	if err != nil {
		return err
	}
	return w.run(ctx, o.Ready)
}

// connect connects to NATS and MongoDB, and creates streams and indexes that are
// missing. It ends with what NATS does not permit: all of it is needed.
func (w *worker) connect(ctx context.Context) (err error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer func() { err = Explain(ctx, w.nc, err) }()
	if w.nc, err = Connect(w.cfg.NATS, w.cfg.Worker.ID, w.log, nats.ClosedHandler(func(*nats.Conn) { close(w.closed) }), EndOnRefusal(w.cfg.NATS, end)); err != nil {
		return err
	}
	if w.js, err = jetStream(w.nc, w.requestTimeout); err != nil {
		return err
	}
	if err := streams.CheckServer(ctx, w.js); err != nil {
		return err
	}
	if w.db, err = OpenStore(ctx, w.cfg.MongoDB); err != nil {
		return err
	}
	if options := w.db.Overridden(); len(options) > 0 {
		w.log.Warn("options in mongodb.uri have no effect: reads go to the primary, reads and writes to a majority, within mongodb.timeout", zap.Strings("options", options))
	}
	if w.streams, err = streams.New(streams.Options{JetStream: w.js, State: w.db, Config: w.cfg, Log: w.log}); err != nil {
		return err
	}
	if _, err = w.streams.Ensure(ctx); err != nil {
		return err
	}
	installation, err := w.db.Installation(ctx)
	if err != nil {
		return err
	}
	w.source = events.SourceOf(installation.ID)
	w.ensureIndexes(ctx) // the database is this installation's: Ensure has checked it
	return nil
}

// ensureIndexes creates missing indexes. If that takes long, it returns and the worker
// works meanwhile.
func (w *worker) ensureIndexes(ctx context.Context) {
	failed := make(chan struct{}, 1)
	done := w.db.EnsureInBackground(func(err error) {
		w.log.Error("indexes of MongoDB are missing and can't be created now; work that needs them is slow until then", zap.Error(err))
		select {
		case failed <- struct{}{}:
		default:
		}
	})
	select {
	case <-done:
	case <-failed:
	case <-ctx.Done():
	case <-time.After(w.cfg.MongoDB.Timeout):
		w.log.Warn("indexes of MongoDB are being created; work that needs them is slow until then")
	}
}

func (w *worker) disconnect() {
	if w.page != nil {
		w.page.Close()
	}
	if w.envelope != nil {
		w.envelope.Close()
	}
	if w.db != nil {
		if err := w.db.Close(context.Background()); err != nil {
			w.log.Warn("closing the connection to MongoDB", zap.Error(err))
		}
	}
	if w.nc != nil {
		if err := w.nc.FlushTimeout(5 * time.Second); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			w.log.Warn("sending the last messages to NATS", zap.Error(err))
		}
		w.nc.Close()
	}
}

// run works until ctx ends.
func (w *worker) run(ctx context.Context, ready func()) error {
	failed := make(chan error, 2)
	var background sync.WaitGroup
	stopped, stop := context.WithCancel(ctx)
	defer w.awaitBackground(&background)
	defer stop()
	background.Go(func() { failed <- w.router.Run(context.WithoutCancel(ctx)) })
	select {
	case <-w.router.Running():
	case err := <-failed:
		return fmt.Errorf("starting to receive: %w", err)
	case <-ctx.Done():
	}
	if err := w.tokens.Start(w.nc); err != nil {
		return errors.Join(err, w.router.Close())
	}
	background.Go(func() { w.reconciler.Run(stopped) })
	background.Go(func() { w.grantStats.Run(stopped) })
	background.Go(func() { w.membership.Run(stopped) })
	background.Go(func() { w.maintainDataKeys(stopped) })
	background.Go(func() { w.keys.Run(stopped) })
	stopAdmin, err := w.startAdmin()
	if err != nil {
		return errors.Join(err, w.finish())
	}
	w.log.Info("working", zap.String("nats", w.nc.ConnectedUrlRedacted()), zap.String("database", w.cfg.MongoDB.Database))
	if ready != nil {
		ready()
	}

	var cause error
	select {
	case <-ctx.Done():
		w.stopping.Store(true)
		w.log.Info("stopping: finishing what is under way", zap.Duration("grace", w.cfg.Worker.Grace))
	case err := <-failed:
		cause = errors.Join(errors.New("the message router ended by itself"), err)
	case cause = <-w.foreign:
	case <-w.closed:
		cause = fmt.Errorf("the connection to NATS is closed for good: %w", cmp.Or(w.nc.LastError(), nats.ErrConnectionClosed))
	}
	if cause != nil {
		text := cause.Error()
		w.ended.Store(&text)
		w.log.Error("the worker can't work any more: it finishes what is under way and ends", zap.Error(cause))
	}
	stop()
	err = errors.Join(cause, w.finish(), stopAdmin())
	w.log.Info("stopped", zap.Error(err))
	return err
}

// watched is the topology for reconciliation. It ends the worker where the streams
// or the database turn out to belong to another installation, or where streams that
// somebody else keeps are not what a worker needs.
type watched struct {
	*streams.Topology
	foreign chan<- error
}

func (w watched) Identities(ctx context.Context) ([]string, error) {
	identities, err := w.Topology.Identities(ctx)
	if errors.Is(err, streams.ErrOtherInstallation) || errors.Is(err, streams.ErrUnfit) {
		select {
		case w.foreign <- err:
		default: // the worker ends already
		}
	}
	return identities, err
}

// finish accepts no more work and waits, within the grace, for what is under way.
func (w *worker) finish() error {
	done := make(chan error, 1)
	go func() {
		received := make(chan error, 1)
		go func() { received <- w.router.Close() }()
		w.refresher.Stop()
		err := errors.Join(w.tokens.Stop(), <-received)
		w.refresher.Wait()
		w.dispatcher.Wait()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(w.cfg.Worker.Grace):
		return errors.New("worker.grace expired before all work finished; interrupted refreshes show as expired leases")
	}
}

// backgroundGrace bounds how long background tasks take to end.
const backgroundGrace = 10 * time.Second

// awaitBackground waits for background tasks to end.
func (w *worker) awaitBackground(background *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		background.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(backgroundGrace):
		w.log.Error("a background task does not end; the worker ends without it")
	}
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }
