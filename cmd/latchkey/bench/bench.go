// Package bench measures a worker on somebody's own NATS and MongoDB, against
// what the bare engines do in the same run. It works under a prefix and in a
// database of its own, with users that don't exist, and removes both in the end.
package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
)

// Options of a measurement.
type Options struct {
	// Name sets what is made apart from everything else: a few letters and
	// digits, new for every run.
	Name string
	// Users is how many are made up for each round of connects and of first
	// requests, Warm (at most Users; 0: all) how many are asked for again and
	// again, Callers how many ask at once.
	Users, Warm, Callers int
	// Duration is how long each round of requests lasts; Rounds how many there
	// are of each kind.
	Duration time.Duration
	Rounds   int
	// SameReads has the users read from MongoDB while the echo is measured, as often
	// as a worker that they are asked of reads them: for a database that shares the
	// machine, and takes much of it for that.
	SameReads bool
	// Longest, if set, is how long a round of connects may take: there are fewer
	// users where a first, small one says that it would take longer.
	Longest time.Duration
	// Prepare, if set, is called once the worker has made its collections, and
	// again when those of the bare engine are there.
	Prepare func(context.Context) error
	// Progress is told of what begins.
	Progress func(string)
	Log      *zap.Logger
}

// Run measures. What it made is removed before it returns, also when ctx ends.
func Run(ctx context.Context, cfg config.Config, o Options) (figures []Figure, err error) {
	b := &run{Options: o, cfg: apart(cfg, o.Name)}
	b.subjects = events.Subjects{Prefix: b.cfg.NATS.Prefix}
	nc, err := worker.Connect(b.cfg.NATS, "bench", o.Log)
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
		ctx := context.WithoutCancel(ctx)
		err = errors.Join(err, Remove(ctx, b.js, b.db, b.subjects, o.Progress), client.Disconnect(ctx))
	}()
	connects, err := b.connects(ctx)
	if err != nil {
		return nil, err
	}
	// Of those users a new worker keeps nothing yet.
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

// run is a measurement under way.
type run struct {
	Options
	cfg      config.Config
	subjects events.Subjects
	nc       *nats.Conn
	js       jetstream.JetStream
	db       *mongo.Database
	metrics  *prometheus.Registry // of the worker that runs
}

// What is made has names that begin so, and nothing else is removed.
const (
	PrefixBegins   = "bench-"
	DatabaseBegins = "latchkey_bench_"
)

// apart returns a configuration that shares servers and keys with cfg, and
// nothing else.
func apart(cfg config.Config, name string) config.Config {
	cfg.NATS.Prefix = PrefixBegins + name
	cfg.MongoDB.Database = DatabaseBegins + name
	cfg.Worker.ID = "bench-" + name
	cfg.Admin.Listen = ""
	cfg.Tracing.Endpoint = ""
	cfg.Connect.RequireSealed = false
	return cfg
}

// prepare makes the collection of the bare engine, like that which the worker has made.
func (b *run) prepare(ctx context.Context) error {
	if err := twin(ctx, b.db.Collection(grants), b.db.Collection(bare)); err != nil {
		return err
	}
	if b.Prepare == nil {
		return nil
	}
	return b.Prepare(ctx)
}

// twin makes a collection that has the indexes of another.
func twin(ctx context.Context, of, twin *mongo.Collection) error {
	specs, err := of.Indexes().ListSpecifications(ctx)
	if err != nil {
		return fmt.Errorf("listing the indexes: %w", err)
	}
	for _, spec := range specs {
		if spec.Name == "_id_" {
			continue
		}
		if _, err := twin.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: spec.KeysDocument}); err != nil {
			return fmt.Errorf("making the same indexes: %w", err)
		}
	}
	return nil
}

// start runs a worker, unchanged, until stop is called, and returns once it has reconciled.
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
		if err := b.reconciled(ctx); err != nil {
			return nil, errors.Join(err, stop())
		}
		return stop, nil
	case err := <-done:
		cancel()
		return nil, errors.Join(err, ctx.Err())
	}
}

// reconciled waits until the worker's first reconciliation has ended, which
// takes its time on a database that reads much for it.
func (b *run) reconciled(ctx context.Context) error {
	for {
		all, err := b.metrics.Gather()
		if err != nil {
			return fmt.Errorf("looking at the worker's metrics: %w", err)
		}
		for _, family := range all {
			for _, outcome := range family.GetMetric() {
				if family.GetName() == "latchkey_reconciliations_total" && outcome.GetCounter().GetValue() > 0 {
					return nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Remove deletes the streams and the database of a measurement.
func Remove(ctx context.Context, js jetstream.JetStream, db *mongo.Database, s events.Subjects, progress func(string)) error {
	progress("removing what was made")
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if !strings.HasPrefix(s.Prefix, PrefixBegins) || !strings.HasPrefix(db.Name(), DatabaseBegins) {
		return errors.New("these are not the names that a measurement uses; nothing was removed")
	}
	var failed []error
	streams := []string{s.IntegrationStream(), s.LifecycleStream(), s.RecoveryStream(), s.CanaryStream(), s.DeadLetterStream(), s.AuditStream()}
	for _, p := range s.RefreshPartitions() {
		streams = append(streams, p.Stream)
	}
	for _, name := range streams {
		if err := js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			failed = append(failed, fmt.Errorf("removing stream %s: %w", name, err))
		}
	}
	if err := db.Drop(ctx); err != nil {
		failed = append(failed, fmt.Errorf("removing database %s: %w", db.Name(), err))
	}
	return errors.Join(failed...)
}
