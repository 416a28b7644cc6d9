// Package chaos puts worker processes through failures of their own and of everything around
// them, and judges what became of the grants by the simulated institutions' ledger.
package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/store"
)

type Options struct {
	// Seed decides what happens when. Two runs with one seed play the same scenes; how the
	// processes interleave differs.
	Seed     uint64
	Duration time.Duration // of the scenes; 0 plays each once
	Grants   int
	Workers  int
	Lifetime time.Duration // of an access token; DefaultLifetime if 0
	// Patience multiplies the times within which workers must announce, answer or repair; 1 if
	// 0. A busy machine needs more.
	Patience int
	Cluster  bool     // three NATS servers with replicated streams
	Postgres bool     // keep the database's data in an installed PostgreSQL: for thousands of grants
	Only     []string // the scenes to play, if not empty
	Keep     bool     // leave the folder with data and logs in place
	Out      io.Writer
}

var ErrJudged = errors.New("chaos: the judge found what must not be; see the table")

type run struct {
	Options
	dir        string
	rng        *rand.Rand
	stack      *stack.Stack
	cluster    *engines.Cluster
	workers    []*process
	nc         *nats.Conn
	js         jetstream.JetStream
	db         *store.Store
	mongo      *mongo.Database
	stops      []func() // of what was started, in its order
	start      time.Time
	losses     []loss // when an answer may have been lost with a worker
	timeline   timeline
	wrongLogin bool // NATS refuses the workers' password
	listener   *listener
	readers    *readers
	waits      []timedRequest // requests for healthy grants that waited for a sick broker
	repeats    []repeat       // presentations of refresh tokens beyond the workers' calls
	junk       junk
	gone       map[int]bool // grants whose users withdrew consent
	early      atomic.Bool  // the HTTP/2 peers break off requests before their bodies
}

// Run plays scenes until the time is over, lets everything settle, and judges. exe is the
// program whose "worker" command runs one worker.
func Run(ctx context.Context, exe string, o Options) (err error) {
	if err := checkNames(o.Only); err != nil {
		return err
	}
	o.Lifetime = cmp.Or(o.Lifetime, DefaultLifetime)
	if o.Lifetime < leastLifetime {
		return fmt.Errorf("chaos: access tokens must live %s at least: workers hand a token out until a tenth of its life before its end, and their clocks differ by %s", leastLifetime, clockSkew)
	}
	r := &run{Options: o, rng: rand.New(rand.NewPCG(o.Seed, 1)), junk: junk{sent: map[string]int{}, letters: map[string]map[time.Time]bool{}, next: 1}, gone: map[int]bool{}, start: time.Now()}
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
	r.timeline.begin("connecting", true)
	if err := r.connectAll(ctx); err != nil {
		return err
	}
	r.say("%d grants stored; seed %d, %s", o.Grants, o.Seed, o.scenes())
	if err := r.play(ctx); err != nil {
		return err
	}
	settleErr := r.awaitRecovery(ctx)
	if settleErr != nil {
		r.say("%v", settleErr)
	}
	stopErr := r.stopWorkers()
	return errors.Join(r.judge(ctx), settleErr, stopErr)
}

func (o Options) scenes() string {
	if o.Duration == 0 {
		return "each scene once"
	}
	return o.Duration.String() + " of scenes"
}

// patient returns how long a worker may really take for what it must do within d.
func (o Options) patient(d time.Duration) time.Duration { return d * time.Duration(max(o.Patience, 1)) }

func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.Out, "%7.1fs  %s\n", time.Since(r.start).Seconds(), fmt.Sprintf(format, args...))
}

func (r *run) setUp(ctx context.Context, exe string) error {
	o := stack.Options{Dir: r.dir, CredentialsLifetime: credentialsLife, Institutions: map[string]meshsim.Institution{}}
	for _, broker := range brokers {
		o.Institutions[broker] = r.institution()
	}
	if r.Postgres {
		dir, err := os.MkdirTemp("", "latchkey-chaos-postgres-") // it belongs to another user
		if err != nil {
			return fmt.Errorf("making a folder: %w", err)
		}
		r.stops = append(r.stops, func() { _ = os.RemoveAll(dir) })
		postgres, err := engines.StartPostgres(ctx, dir)
		if err != nil {
			return err
		}
		r.stops = append(r.stops, postgres.Stop)
		o.PostgresURL = postgres.URL()
	}
	o.NATSConfigure = r.natsUsers
	more := settings()
	if r.Cluster {
		cluster, err := engines.StartCluster(3, engines.NATSOptions{Dir: filepath.Join(r.dir, "nats"), Key: "chaos", Configure: r.natsUsers})
		if err != nil {
			return err
		}
		r.cluster, o.NATSURL = cluster, cluster.URL()
		r.stops = append(r.stops, cluster.Stop)
		more = append(more, "LATCHKEY_NATS_REPLICAS=3")
	} else {
		o.NATSMaxStore = maxStore
	}
	s, err := stack.Start(o)
	if err != nil {
		return err
	}
	r.stack = s
	r.stops = append(r.stops, s.Stop)
	cfg, err := s.Config(more...)
	if err != nil {
		return err
	}
	if r.db, err = store.Open(ctx, store.Options{URI: cfg.MongoDB.URI, Database: cfg.MongoDB.Database, Timeout: cfg.MongoDB.Timeout, AppName: "chaos"}); err != nil {
		return err
	}
	r.stops = append(r.stops, func() { withinASecond(ctx, r.db.Close) })
	client, err := mongo.Connect(options.Client().ApplyURI(cfg.MongoDB.URI.Reveal()))
	if err != nil {
		return fmt.Errorf("connecting to the database: %w", err)
	}
	r.mongo = client.Database(cfg.MongoDB.Database)
	r.stops = append(r.stops, func() { withinASecond(ctx, client.Disconnect) })
	if r.nc, err = nats.Connect(cfg.NATS.URL, nats.UserInfo(chaosUser, chaosPassword), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond)); err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	r.stops = append(r.stops, r.nc.Close)
	if r.js, err = jetstream.New(r.nc); err != nil {
		return fmt.Errorf("setting up JetStream: %w", err)
	}
	identity, err := s.WebIdentity(r.dir)
	if err != nil {
		return err
	}
	more = append(more, identity...)
	for i := range r.Workers {
		if err := r.startWorker(exe, i, more); err != nil {
			return err
		}
	}
	r.listener = newListener(r.js)
	return nil
}

func (r *run) institution() meshsim.Institution {
	return meshsim.Institution{AccessLifetime: r.Lifetime, RefreshLifetime: time.Hour, Grace: refreshGrace}
}

// connectAll publishes all connects at once and waits until every grant is stored.
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
	for i := range r.Grants + wallets {
		id, spec := user(i), r.connectOf(i)
		if n := i - r.Grants; n >= 0 {
			id, spec.Delayed, spec.Institution.Dialects = wallet(n), false, []string{"wallet"}
		}
		c, err := r.stack.Mesh.Connect(spec)
		if err != nil {
			return err
		}
		body := fmt.Sprintf(`{"userId":%q,"payload":%s}`, id, c.Payload.Reveal())
		if _, err := r.js.PublishAsync(subjects.Connected(), []byte(body)); err != nil {
			return fmt.Errorf("publishing a connect: %w", err)
		}
	}
	<-r.js.PublishAsyncComplete()
	if err := until(ctx, settleWithin, "all grants stored", func() error {
		if err := r.listener.drain(ctx); err != nil {
			return err
		}
		if n := len(r.listener.byGrant); n < r.Grants {
			return fmt.Errorf("%d of %d", n, r.Grants)
		}
		return nil
	}); err != nil {
		return err
	}
	var err error
	r.readers, err = startReaders(r)
	return err
}

// awaitRecovery waits, with all engines up, until every grant was once refreshed again and in its
// proper state. Not all at one moment: some are always being refreshed.
func (r *run) awaitRecovery(ctx context.Context) error {
	r.say("letting everything settle")
	r.timeline.begin("settling", false)
	r.readers.stop()
	began := time.Now()
	seen := make(map[int]bool, r.Grants)
	return until(ctx, settleWithin, "everything settled", func() error {
		if err := r.listener.drain(ctx); err != nil {
			return err
		}
		ledger, now := answers{r.stack.Mesh.Ledger()}, time.Now()
		for i := range r.Grants {
			if seen[i] {
				continue // each look reads the whole collection of the embedded database
			}
			grants, err := r.db.ByUser(ctx, user(i))
			if err != nil {
				return err
			}
			switch over, ok := hasRecovered(ledger.family(accountsOf(i)), grants, began, now); {
			case !ok && over:
				return fmt.Errorf("the grants of %s, who has left, go on", user(i))
			case ok:
				seen[i] = true
			}
		}
		if unsettled := r.Grants - len(seen); unsettled > 0 {
			return fmt.Errorf("%d grants unsettled", unsettled)
		}
		info, err := r.recoveries(ctx)
		if err != nil {
			return err
		}
		if info > 0 {
			return fmt.Errorf("%d recoveries not applied", info)
		}
		return errors.Join(r.allParked(ctx), r.idle(ctx))
	})
}

// hasRecovered reports whether the grants of a user have tokens newer than since, and nothing
// under way; over: whether the user has left.
func hasRecovered(family []meshsim.Chain, grants []*store.Grant, since, now time.Time) (over, ok bool) {
	ok = len(grants) >= len(family)
	for _, chain := range family {
		over = over || !chain.Alive()
		g := grantOf(grants, chain)
		ok = ok && g != nil && g.State == stateOf(chain) && g.Outbox == nil && !g.HasSeparateRefreshTokens && (!chain.Alive() || isRefreshed(g, since, now))
	}
	return over, ok
}

// isRefreshed reports whether a grant has tokens newer than since, if it knows when they end,
// and nothing under way. A worker's clock may be behind.
func isRefreshed(g *store.Grant, since, now time.Time) bool {
	if g.Access == nil || g.Lease.Valid(now) {
		return false
	}
	const long = 24 * time.Hour // a worker believes such an answer until a caller reports the token
	return g.Access.ExpiresAt == nil || g.Access.ExpiresAt.After(now.Add(long)) || g.Access.Since.After(since.Add(-clockSkew)) && !g.Access.Expired(now)
}

func (r *run) recoveries(ctx context.Context) (uint64, error) {
	s, err := r.js.Stream(ctx, events.Subjects{}.RecoveryStream())
	if err != nil {
		return 0, err
	}
	return s.CachedInfo().State.Msgs, nil
}

// stopWorkers ends the workers as an orchestrator would. They must end cleanly.
func (r *run) stopWorkers() error { return r.eachWorker((*process).terminate) }

func (r *run) eachWorker(do func(*process) error) (err error) {
	for _, w := range r.workers {
		err = errors.Join(err, do(w))
	}
	return err
}

func (r *run) shutdown() {
	for _, stop := range slices.Backward(r.stops) {
		stop()
	}
}

func withinASecond(ctx context.Context, do func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = do(ctx) // the servers end next
}

// until repeats do until it succeeds, and returns its last error after a time.
func until(ctx context.Context, within time.Duration, what string, do func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := do()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || pause.For(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
	}
}
