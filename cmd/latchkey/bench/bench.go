// Package bench measures a worker on the user's NATS and MongoDB against the bare engines
// in the same run. It uses a NATS prefix and a database of its own, with made-up users,
// and removes both in the end.
package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/memory"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/pause"
)

// Options of a measurement.
type Options struct {
	// Name is part of the names of the prefix and the database: a few letters and
	// digits, new for every run.
	Name string
	// Users is the number of users for each round of connects and of first requests,
	// Warm (at most Users; 0: all) the number of users for repeated requests, Callers
	// the number of concurrent requests.
	Users, Warm, Callers int
	// Duration is the length of each round of repeated requests; Rounds the number of
	// rounds of each kind.
	Duration time.Duration
	Rounds   int
	// SameReads reads the users from MongoDB during the echo, as often as a worker
	// does: for a database on the same machine, which these reads keep busy.
	SameReads bool
	// Longest, if set, bounds a round of connects: if the warm-up says that it would
	// take longer, there are fewer users.
	Longest time.Duration
	// Prepare, if set, is called when all collections are there.
	Prepare func(context.Context) error
	// Progress is called with what begins.
	Progress func(string)
	Log      *zap.Logger
}

// Run measures, and then removes what it has created, also if ctx ends.
func Run(ctx context.Context, cfg config.Config, o Options) (figures []Figure, err error) {
	if _, err := memory.TuneHeap(); err != nil { // as the worker's own process does
		o.Progress("garbage collection: " + err.Error())
	}
	b := &run{Options: o, cfg: apart(cfg, o.Name)}
	b.subjects = b.cfg.NATS.Subjects()
	// What NATS refuses ends the measurement or, if it refuses that, the removal.
	ctx, end := context.WithCancelCause(ctx)
	removing, endRemoving := context.WithCancelCause(context.WithoutCancel(ctx))
	defer func() { end(nil); endRemoving(nil) }()
	var removal atomic.Bool
	nc, err := worker.Connect(b.cfg.NATS, "bench", o.Log, worker.EndOnRefusal(b.cfg.NATS, func(cause error) {
		if removal.Load() {
			endRemoving(cause)
		}
		end(cause)
	}))
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	b.nc = nc
	if b.js, err = worker.JetStream(nc); err != nil {
		return nil, err
	}
	client, err := Connect(b.cfg.MongoDB)
	if err != nil {
		return nil, err
	}
	b.db = client.Database(b.cfg.MongoDB.Database)
	defer func() {
		err = worker.Explain(ctx, nc, err)
		removal.Store(true)
		left := worker.Explain(removing, nc, Remove(removing, b.js, b.db, b.subjects, o.Progress))
		err = errors.Join(err, left, client.Disconnect(context.WithoutCancel(ctx)))
	}()
	connects, err := b.connects(ctx)
	if err != nil {
		return nil, err
	}
	// A new worker has none of those users in its cache.
	stop, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	cold, err := b.cold(ctx)
	if err != nil {
		return nil, err
	}
	warm, err := b.warm(ctx)
	if err != nil {
		return nil, err
	}
	return []Figure{connects, cold, warm}, nil
}

// Connect connects to MongoDB as a worker does.
func Connect(cfg config.MongoDB) (*mongo.Client, error) {
	client, err := mongo.Connect(options.Client().ApplyURI(cfg.URI.Reveal()).SetTimeout(cfg.Timeout).
		SetWriteConcern(writeconcern.Majority()).SetReadConcern(readconcern.Majority()))
	if err != nil {
		return nil, errors.New("mongodb.uri is not a usable connection string")
	}
	return client, nil
}

type run struct {
	Options
	cfg      config.Config
	subjects events.Subjects
	nc       *nats.Conn
	js       jetstream.JetStream
	db       *mongo.Database
	metrics  *prometheus.Registry // of the worker that runs
}

// Prefixes of the names that a measurement uses. It removes nothing else.
const (
	PrefixBegins   = "bench-"
	DatabaseBegins = "latchkey_bench_"
)

// apart returns a configuration that shares only servers and keys with cfg.
func apart(cfg config.Config, name string) config.Config {
	cfg.NATS.Prefix = PrefixBegins + name
	cfg.MongoDB.Database = DatabaseBegins + name
	cfg.Worker.ID = "bench-" + name
	cfg.Admin.Listen = ""
	cfg.Tracing.Endpoint = ""
	cfg.Connect.RequireSealed = false
	return cfg
}

// prepare creates the collection of the bare driver, like the worker's.
func (b *run) prepare(ctx context.Context) error {
	if err := CopyIndexes(ctx, b.db.Collection(grants), b.db.Collection(bare)); err != nil {
		return err
	}
	if b.Prepare == nil {
		return nil
	}
	return b.Prepare(ctx)
}

// CopyIndexes creates the indexes of one collection on another.
func CopyIndexes(ctx context.Context, from, to *mongo.Collection) error {
	specs, err := from.Indexes().ListSpecifications(ctx)
	if err != nil {
		return fmt.Errorf("listing the indexes: %w", err)
	}
	for _, spec := range specs {
		if spec.Name == "_id_" {
			continue
		}
		if _, err := to.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: spec.KeysDocument}); err != nil {
			return fmt.Errorf("making the same indexes: %w", err)
		}
	}
	return nil
}

// start runs a worker until stop is called. It returns when the worker has reconciled.
func (b *run) start(ctx context.Context) (stop func() error, err error) {
	running, cancel := context.WithCancel(ctx)
	b.metrics = prometheus.NewRegistry()
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- worker.Run(running, b.cfg, worker.Options{Log: b.Log, Metrics: b.metrics, Ready: func() { close(ready) }})
	}()
	stop = func() error { cancel(); return <-done }
	select {
	case <-ready:
		if err := b.awaitReconciliation(ctx); err != nil {
			return nil, errors.Join(err, stop())
		}
		return stop, nil
	case err := <-done:
		cancel()
		return nil, errors.Join(err, ctx.Err())
	}
}

// awaitReconciliation waits for the end of the worker's first reconciliation, which would
// disturb the measurements.
func (b *run) awaitReconciliation(ctx context.Context) error {
	for {
		all, err := b.metrics.Gather()
		if err != nil {
			return fmt.Errorf("reading the worker's metrics: %w", err)
		}
		for _, family := range all {
			for _, outcome := range family.GetMetric() {
				if family.GetName() == "latchkey_reconciliations_total" && outcome.GetCounter().GetValue() > 0 {
					return nil
				}
			}
		}
		if err := pause.For(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// removalTimeout bounds the removal of one stream.
const removalTimeout = 30 * time.Second

// Remove deletes the streams and the database of a measurement.
func Remove(ctx context.Context, js jetstream.JetStream, db *mongo.Database, s events.Subjects, progress func(string)) error {
	progress("removing what was made")
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if !strings.HasPrefix(s.Prefix, PrefixBegins) || !strings.HasPrefix(db.Name(), DatabaseBegins) {
		return errors.New("these are not the names that a measurement uses; nothing was removed")
	}
	var failed []error
	if err := db.Drop(ctx); err != nil {
		failed = append(failed, fmt.Errorf("removing database %s: %w", db.Name(), err))
	}
	streams := []string{s.IntegrationStream(), s.RecoveryStream(), s.CanaryStream(), s.DeadLetterStream()}
	for _, p := range s.RefreshPartitions() {
		streams = append(streams, p.Stream)
	}
	for _, p := range s.LifecyclePartitions() {
		streams = append(streams, p.Stream)
	}
	for _, p := range s.AuditPartitions() {
		streams = append(streams, p.Stream)
	}
	for _, name := range streams {
		within, cancel := context.WithTimeout(ctx, removalTimeout)
		err := js.DeleteStream(within, name)
		cancel()
		if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			failed = append(failed, fmt.Errorf("removing stream %s: %w", name, err))
		}
	}
	return errors.Join(failed...)
}
