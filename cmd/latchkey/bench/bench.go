// Package bench measures a worker on somebody's own NATS and MongoDB, against
// what the bare engines do in the same run. It works under a prefix and in a
// database of its own, with users that don't exist, and removes both in the end.
package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
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
	// Users is how many are made up, Callers how many ask at once.
	Users, Callers int
	// Duration is how long each round of requests lasts; Rounds how many there
	// are of each kind.
	Duration time.Duration
	Rounds   int
	// Progress is told of what begins.
	Progress func(string)
	Log      *zap.Logger
}

// Figure is what was measured of one kind of work, in units a second.
type Figure struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Latchkey and Bare hold one value a round, and their 99th percentiles in
	// milliseconds where single answers were timed.
	Latchkey    []float64 `json:"latchkey"`
	Bare        []float64 `json:"bare"`
	LatchkeyP99 []float64 `json:"latchkeyP99,omitempty"`
	BareP99     []float64 `json:"bareP99,omitempty"`
	// Against says what Bare is.
	Against string `json:"against"`
}

// Ratio is the median of Latchkey to that of Bare.
func (f Figure) Ratio() float64 { return Median(f.Latchkey) / Median(f.Bare) }

// Median returns the middle of values; 0 of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
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
	if b.js, err = jetstream.New(nc); err != nil {
		return nil, fmt.Errorf("setting up JetStream: %w", err)
	}
	client, err := mongo.Connect(options.Client().ApplyURI(b.cfg.MongoDB.URI.Reveal()).SetTimeout(b.cfg.MongoDB.Timeout))
	if err != nil {
		return nil, errors.New("mongodb.uri is not a usable connection string")
	}
	b.db = client.Database(b.cfg.MongoDB.Database)
	defer func() {
		ctx := context.WithoutCancel(ctx)
		err = errors.Join(err, b.remove(ctx), client.Disconnect(ctx))
	}()
	stop, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for _, measure := range []func(context.Context) (Figure, error){b.connects, b.cold, b.warm} {
		f, err := measure(ctx)
		if err != nil {
			return nil, err
		}
		figures = append(figures, f)
	}
	return figures, nil
}

// run is a measurement under way.
type run struct {
	Options
	cfg      config.Config
	subjects events.Subjects
	nc       *nats.Conn
	js       jetstream.JetStream
	db       *mongo.Database
}

// apart returns a configuration that shares servers and keys with cfg, and
// nothing else.
func apart(cfg config.Config, name string) config.Config {
	cfg.NATS.Prefix = "bench-" + name
	cfg.MongoDB.Database = "latchkey_bench_" + name
	cfg.Worker.ID = "bench-" + name
	cfg.Admin.Listen = ""
	cfg.Tracing.Endpoint = ""
	cfg.Connect.RequireSealed = false
	return cfg
}

// start runs a worker, unchanged, until stop is called.
func (b *run) start(ctx context.Context) (stop func() error, err error) {
	b.Progress("starting a worker")
	running, cancel := context.WithCancel(ctx)
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- worker.Run(running, b.cfg, worker.Options{Log: b.Log, Metrics: prometheus.NewRegistry(), Ready: func() { close(ready) }})
	}()
	stop = func() error { cancel(); return <-done }
	select {
	case <-ready:
		return stop, nil
	case err := <-done:
		cancel()
		return nil, errors.Join(err, ctx.Err())
	}
}

// remove deletes the streams and the database.
func (b *run) remove(ctx context.Context) error {
	b.Progress("removing what was made")
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if !strings.HasPrefix(b.subjects.Prefix, "bench-") || !strings.HasPrefix(b.db.Name(), "latchkey_bench_") {
		return errors.New("these are not the names that a measurement uses; nothing was removed")
	}
	var failed []error
	s := b.subjects
	for _, name := range []string{s.IntegrationStream(), s.RefreshStream(), s.LifecycleStream(), s.RecoveryStream(), s.CanaryStream(), s.DeadLetterStream(), s.AuditStream()} {
		if err := b.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			failed = append(failed, fmt.Errorf("removing stream %s: %w", name, err))
		}
	}
	if err := b.db.Drop(ctx); err != nil {
		failed = append(failed, fmt.Errorf("removing database %s: %w", b.db.Name(), err))
	}
	return errors.Join(failed...)
}
