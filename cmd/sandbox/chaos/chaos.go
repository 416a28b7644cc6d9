// Package chaos puts worker processes through failures of everything around
// them and of themselves, and lets the simulated institutions' ledger judge
// what became of the grants.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// Options of a run.
type Options struct {
	// Seed decides what happens when. Two runs with one seed play the same
	// scenes; how the processes interleave differs.
	Seed     uint64
	Duration time.Duration
	Grants   int
	Workers  int
	// Lifetime is that of an access token (DefaultLifetime).
	Lifetime time.Duration
	// Cluster runs three NATS servers with replicated streams.
	Cluster bool
	// Postgres has the database keep its data in PostgreSQL, which must be
	// installed: for thousands of grants.
	Postgres bool
	// Only, if not empty, names the scenes to play.
	Only []string
	// Keep leaves the folder with data and logs in place.
	Keep bool
	Out  io.Writer
}

// ErrJudged: the judge found something that must not be.
var ErrJudged = errors.New("chaos: the judge found what must not be; see the table")

// Times of a run. The institutions take a replaced refresh token for grace
// longer, which covers a lease that has to run out; leases and calls are short
// so that a run is.
const (
	// DefaultLifetime is how long access tokens live unless told otherwise.
	DefaultLifetime = 24 * time.Second

	refreshGrace = 45 * time.Second
	clockSkew    = 2 * time.Second
	ackWait      = 3 * time.Second
	settleWithin = 6 * time.Minute
)

var brokers = []string{"coinbase", "kraken", "binance"}

// settings make a worker quick to notice and to try again.
func settings() []string {
	return []string{
		"LATCHKEY_ADMIN_LISTEN=",
		"LATCHKEY_LOG_LEVEL=info",
		"LATCHKEY_WORKER_CLOCK_SKEW=" + clockSkew.String(),
		"LATCHKEY_WORKER_GRACE=20s",
		"LATCHKEY_MESH_TIMEOUT=2s",
		"LATCHKEY_MONGODB_TIMEOUT=4s",
		"LATCHKEY_KMS_TIMEOUT=2s",
		"LATCHKEY_REFRESH_LEASE=11s",
		"LATCHKEY_REFRESH_GRACE=" + refreshGrace.String(),
		"LATCHKEY_REFRESH_ACCESS_TOKEN_SHARE=0.5",
		"LATCHKEY_REFRESH_ACCESS_TOKEN_MIN=1s",
		"LATCHKEY_REFRESH_BACKOFF_MIN=200ms",
		"LATCHKEY_REFRESH_BACKOFF_MAX=4s",
		"LATCHKEY_REFRESH_RATE_LIMITED_MIN=200ms",
		"LATCHKEY_REFRESH_RATE_LIMITED_MAX=4s",
		"LATCHKEY_LIMITS_RATE=500",
		"LATCHKEY_LIMITS_BURST=500",
		"LATCHKEY_LIMITS_BROKER_RATE=300",
		"LATCHKEY_LIMITS_BROKER_BURST=300",
		"LATCHKEY_LIMITS_BREAKER_OPEN=2s",
		"LATCHKEY_CONNECT_CONCURRENCY=4",
		"LATCHKEY_REFRESH_CONCURRENCY=16",
		"LATCHKEY_MESSAGES_ACK_WAIT=" + ackWait.String(),
		"LATCHKEY_MESSAGES_BACKOFF_MIN=200ms",
		"LATCHKEY_MESSAGES_BACKOFF_MAX=3s",
		"LATCHKEY_RECONCILE_INTERVAL=2s",
		"LATCHKEY_RECONCILE_SLACK=2s",
		"LATCHKEY_TOKENS_MIN_TTL=3s",
		"LATCHKEY_TOKENS_TIMEOUT=8s",
	}
}

// run is one run of the suite.
type run struct {
	Options
	dir     string
	rng     *rand.Rand
	stack   *stack.Stack
	cluster *engines.Cluster
	// postgres and its folder, which another user than this one owns.
	postgres    *engines.Postgres
	postgresDir string
	workers     []*process
	nc          *nats.Conn
	js          jetstream.JetStream
	db          *store.Store
	start       time.Time
	kills       []time.Time
	played      map[string]int
	heard       *listener
	asked       *readers
}

// Run plays scenes until the time is over, lets everything settle, and judges.
// exe is the program whose "worker" command runs one worker.
func Run(ctx context.Context, exe string, o Options) (err error) {
	if o.Lifetime == 0 {
		o.Lifetime = DefaultLifetime
	}
	r := &run{Options: o, rng: rand.New(rand.NewPCG(o.Seed, 1)), played: map[string]int{}, start: time.Now()}
	if r.dir, err = os.MkdirTemp("", "latchkey-chaos-"); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer func() {
		if !o.Keep && err == nil {
			err = os.RemoveAll(r.dir)
		} else {
			fmt.Fprintf(o.Out, "\nData and logs: %s\n", r.dir)
		}
	}()
	defer r.shutdown()
	if err := r.setUp(ctx, exe); err != nil {
		return err
	}
	if err := r.connectAll(ctx); err != nil {
		return err
	}
	r.say("%d grants stored; seed %d, %s of scenes", o.Grants, o.Seed, o.Duration)
	if err := r.play(ctx); err != nil {
		return err
	}
	if err := r.settle(ctx); err != nil {
		r.say("%v", err)
	}
	stopErr := r.stopWorkers()
	return errors.Join(r.judge(ctx), stopErr)
}

func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.Out, "%7.1fs  %s\n", time.Since(r.start).Seconds(), fmt.Sprintf(format, args...))
}

func (r *run) setUp(ctx context.Context, exe string) error {
	o := stack.Options{Dir: r.dir, Institutions: map[string]meshsim.Institution{}}
	for _, broker := range brokers {
		o.Institutions[broker] = meshsim.Institution{AccessLifetime: r.Lifetime, RefreshLifetime: time.Hour, Grace: refreshGrace}
	}
	if r.Postgres {
		var err error
		if r.postgresDir, err = os.MkdirTemp("", "latchkey-chaos-postgres-"); err != nil {
			return fmt.Errorf("making a folder: %w", err)
		}
		if r.postgres, err = engines.StartPostgres(ctx, r.postgresDir); err != nil {
			return err
		}
		o.PostgresURL = r.postgres.URL()
	}
	more := settings()
	if r.Cluster {
		cluster, err := engines.StartCluster(3, engines.NATSOptions{Dir: filepath.Join(r.dir, "nats"), Key: "chaos"})
		if err != nil {
			return err
		}
		r.cluster, o.NATSURL = cluster, cluster.URL()
		more = append(more, "LATCHKEY_NATS_REPLICAS=3")
	} else {
		o.NATSMaxStore = maxStore
	}
	s, err := stack.Start(o)
	if err != nil {
		return err
	}
	r.stack = s
	cfg, err := s.Config(more...)
	if err != nil {
		return err
	}
	if r.db, err = store.Open(ctx, store.Options{URI: cfg.MongoDB.URI, Database: cfg.MongoDB.Database, Timeout: cfg.MongoDB.Timeout, AppName: "chaos"}); err != nil {
		return err
	}
	if r.nc, err = nats.Connect(cfg.NATS.URL, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond)); err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	if r.js, err = jetstream.New(r.nc); err != nil {
		return fmt.Errorf("setting up JetStream: %w", err)
	}
	for i := range r.Workers {
		// Clocks differ by up to the tolerated skew from the first to the last.
		offset := time.Duration(0)
		if r.Workers > 1 {
			offset = clockSkew*time.Duration(i)/time.Duration(r.Workers-1) - clockSkew/2
		}
		w := &process{
			exe: exe, offset: offset, log: filepath.Join(r.dir, fmt.Sprintf("worker-%d.log", i)),
			env: append(append(os.Environ(), s.Environ()...), append(more, fmt.Sprintf("LATCHKEY_WORKER_ID=worker-%d", i))...),
		}
		if err := w.start(); err != nil {
			return err
		}
		r.workers = append(r.workers, w)
	}
	r.heard = newListener(r.js)
	return nil
}

// connectAll publishes all connects in one burst and waits until every grant
// is stored.
func (r *run) connectAll(ctx context.Context) error {
	subjects := events.Subjects{}
	if err := until(ctx, settleWithin, "the streams", func() error {
		_, err := r.js.Stream(ctx, subjects.DeadLetterStream())
		return err
	}); err != nil {
		return err
	}
	if err := until(ctx, settleWithin, "the collections", func() error { return r.stack.Ready(ctx) }); err != nil {
		return err
	}
	for i := range r.Grants {
		c, err := r.stack.Mesh.Connect(meshsim.ConnectSpec{BrokerType: brokers[i%len(brokers)], Accounts: []meshsim.Account{{ID: account(i), Name: "Account"}}})
		if err != nil {
			return err
		}
		body := fmt.Sprintf(`{"userId":%q,"payload":%s}`, user(i), c.Payload.Reveal())
		if _, err := r.js.PublishAsync(subjects.Connected(), []byte(body)); err != nil {
			return fmt.Errorf("publishing a connect: %w", err)
		}
	}
	<-r.js.PublishAsyncComplete()
	if err := until(ctx, settleWithin, "all grants stored", func() error {
		if err := r.heard.drain(ctx); err != nil {
			return err
		}
		if n := r.heard.grants(); n < r.Grants {
			return fmt.Errorf("%d of %d", n, r.Grants)
		}
		return nil
	}); err != nil {
		return err
	}
	var err error
	r.asked, err = startReaders(r)
	return err
}

func user(i int) string    { return fmt.Sprintf("user-%d", i) }
func account(i int) string { return fmt.Sprintf("account-%d", i) }

// settle waits until every grant is as it should be, with all engines up.
func (r *run) settle(ctx context.Context) error {
	r.say("letting everything settle")
	r.asked.stop()
	return until(ctx, settleWithin, "everything settled", func() error {
		if err := r.heard.drain(ctx); err != nil {
			return err
		}
		now := time.Now()
		unsettled := 0
		for i := range r.Grants {
			grants, err := r.db.ByUser(ctx, user(i))
			if err != nil {
				return err
			}
			if len(grants) != 1 || grants[0].Outbox != nil || grants[0].State == store.Active && (grants[0].Access.Over(now) || grants[0].Lease.Live(now)) {
				unsettled++
			}
		}
		if unsettled > r.Grants/20 { // some are always being refreshed
			return fmt.Errorf("%d grants unsettled", unsettled)
		}
		info, err := r.recoveries(ctx)
		if err != nil {
			return err
		}
		if info > 0 {
			return fmt.Errorf("%d recoveries not applied", info)
		}
		return nil
	})
}

func (r *run) recoveries(ctx context.Context) (uint64, error) {
	s, err := r.js.Stream(ctx, events.Subjects{}.RecoveryStream())
	if err != nil {
		return 0, err
	}
	return s.CachedInfo().State.Msgs, nil
}

// stopWorkers ends the workers as an orchestrator would and expects them to
// end cleanly.
func (r *run) stopWorkers() error {
	var err error
	for _, w := range r.workers {
		err = errors.Join(err, w.terminate())
	}
	return err
}

func (r *run) shutdown() {
	for _, w := range r.workers {
		w.kill()
	}
	if r.nc != nil {
		r.nc.Close()
	}
	if r.db != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = r.db.Close(ctx)
		cancel()
	}
	if r.stack != nil {
		r.stack.Stop()
	}
	if r.cluster != nil {
		r.cluster.Stop()
	}
	if r.postgres != nil {
		r.postgres.Stop()
	}
	if r.postgresDir != "" {
		_ = os.RemoveAll(r.postgresDir)
	}
}

// until tries until do succeeds, and returns its last error when time is over.
func until(ctx context.Context, within time.Duration, what string, do func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := do()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
