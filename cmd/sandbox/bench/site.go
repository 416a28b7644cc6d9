package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/latchkey/latchkey/cmd/latchkey/bench"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/streams"
)

// settings of all worker processes: limits that do not bind, and one reconciliation, at the
// start, when there is little to read: the embedded database reads whole collections where
// MongoDB uses an index.
func settings() []string {
	return []string{
		"LATCHKEY_WORKER_LOCK_MEMORY=off",
		"LATCHKEY_RECONCILE_INTERVAL=12h",
		"LATCHKEY_LIMITS_RATE=1000000",
		"LATCHKEY_LIMITS_BURST=1000000",
		"LATCHKEY_LIMITS_BROKER_RATE=1000000",
		"LATCHKEY_LIMITS_BROKER_BURST=1000000",
		"LATCHKEY_LIMITS_BROKER_CONCURRENCY=1000",
	}
}

// site is an installation of its own on the servers, with workers in processes of their own.
type site struct {
	*run
	cfg        config.Config
	env        []string
	subjects   events.Subjects
	nc         *nats.Conn
	js         jetstream.JetStream
	client     *mongo.Client
	store      *store.Store
	envelope   *envelope.Envelope
	dispatcher *refresher.Dispatcher
	settler    refresher.Settler
	mesh       *refresher.Mesh
	workers    []*process
}

// site starts an installation with one worker, with more settings. It must be closed.
func (r *run) site(ctx context.Context, name string, more ...string) (s *site, err error) {
	prefix := bench.PrefixBegins + r.name + "-" + name
	more = slices.Concat(settings(), more)
	more = append(more, "LATCHKEY_NATS_PREFIX="+prefix, "LATCHKEY_MONGODB_DATABASE="+database(prefix))
	s = &site{run: r, env: append(os.Environ(), append(r.stack.Environ(), more...)...), subjects: events.Subjects{Prefix: prefix}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(ctx))
		}
	}()
	if s.cfg, err = r.stack.Config(more...); err != nil {
		return s, err
	}
	if s.nc, err = nats.Connect(s.cfg.NATS.URL); err != nil {
		return s, fmt.Errorf("connecting to NATS: %w", err)
	}
	if s.js, err = jetstream.New(s.nc, jetstream.WithPublishAsyncMaxPending(4096)); err != nil {
		return s, fmt.Errorf("setting up JetStream: %w", err)
	}
	if s.client, err = bench.Connect(s.cfg.MongoDB); err != nil {
		return s, err
	}
	if s.store, err = worker.OpenStore(ctx, s.cfg.MongoDB); err != nil {
		return s, err
	}
	if err := s.work(ctx, 1); err != nil {
		return s, err
	}
	if err := s.stack.Ready(ctx); err != nil {
		return s, err
	}
	if s.envelope, err = worker.Envelope(ctx, s.cfg, s.store, time.Now, nil); err != nil {
		return s, err
	}
	newID := func() string { return uuid.Must(uuid.NewV7()).String() }
	if s.settler, err = refresher.NewSettler(refresher.SettlerOptions{Config: s.cfg, Subjects: s.subjects, Now: time.Now, NewID: newID, Rand: rand.Float64}); err != nil {
		return s, err
	}
	s.mesh, err = refresher.NewMesh(refresher.MeshOptions{URL: s.cfg.Mesh.URL, ClientID: s.cfg.Mesh.ClientID, ClientSecret: s.cfg.Mesh.ClientSecret, Timeout: s.cfg.Mesh.Timeout, Now: time.Now})
	if err != nil {
		return s, err
	}
	s.dispatcher, err = refresher.NewDispatcher(refresher.DispatcherOptions{
		JetStream: s.js, Store: s.store, Subjects: s.subjects, Horizon: s.cfg.Refresh.Horizon, Now: time.Now, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		return s, err
	}
	stream, err := s.store.StreamIdentity(ctx)
	s.dispatcher.SetStreams([]string{stream})
	return s, err
}

func database(prefix string) string {
	return bench.DatabaseBegins + strings.TrimPrefix(prefix, bench.PrefixBegins)
}

// work starts or stops workers until there are n.
func (s *site) work(ctx context.Context, n int) (failed error) {
	for len(s.workers) > n {
		last := s.workers[len(s.workers)-1]
		s.workers = s.workers[:len(s.workers)-1]
		failed = errors.Join(failed, last.stop())
	}
	for failed == nil && len(s.workers) < n {
		id := fmt.Sprintf("worker-%d", len(s.workers))
		w, err := startWorker(ctx, s.Exe, filepath.Join(s.dir, s.subjects.Prefix+"-"+id+".log"), append(s.env, "LATCHKEY_WORKER_ID="+id))
		if err != nil {
			return err
		}
		s.workers = append(s.workers, w)
	}
	return failed
}

func (s *site) close(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	failed := s.work(ctx, 0)
	if s.envelope != nil {
		s.envelope.Close()
	}
	if s.store != nil {
		failed = errors.Join(failed, s.store.Close(ctx))
	}
	if s.client != nil {
		failed = errors.Join(failed, bench.Remove(ctx, s.js, s.client.Database(s.cfg.MongoDB.Database), s.subjects, func(string) {}), s.client.Disconnect(ctx))
	}
	if s.nc != nil {
		s.nc.Close()
	}
	return failed
}

// testGrant is a grant that can be refreshed.
type testGrant struct {
	*store.Grant
	tokens store.TokenSet
}

func (s *site) user() string {
	s.users++
	return fmt.Sprint("user-", s.users)
}

// grants makes grants as they are after a connect was stored, scheduled and announced, with
// tokens that Mesh knows. It does not store them.
func (s *site) grants(ctx context.Context, n int, due func(i int) time.Time) ([]testGrant, error) {
	out := make([]testGrant, n)
	for i := range out {
		user := s.user()
		c, err := s.stack.Mesh.Connect(meshsim.ConnectSpec{BrokerType: broker, Accounts: []meshsim.Account{{ID: "account of " + user, Name: "Account"}}})
		if err != nil {
			return nil, err
		}
		account, at := c.Accounts[0], store.Milli(time.Now())
		ends, refreshEnds := at.Add(lifetime), at.Add(90*24*time.Hour)
		g := &store.Grant{
			ID: store.GrantID(user, broker, account.AccountID), UserID: user, BrokerType: broker, BrokerName: broker,
			Accounts: []store.Account{{ID: account.AccountID, Name: "Account", ExpiresAt: &ends}},
			State:    store.Active, ConnectedAt: at, Version: 1, Rev: 1,
			Access: &store.Lifetime{Since: at, ExpiresAt: &ends}, Refresh: &store.Lifetime{Since: at, ExpiresAt: &refreshEnds},
			Due: &store.Due{At: store.Milli(due(i)), Action: store.Refresh},
		}
		g.Due.Stream = s.dispatcher.Stream(g.ID)
		tokens := store.TokenSet{
			Accounts:     []store.AccountToken{{AccountID: account.AccountID, AccessToken: account.AccessToken}},
			RefreshToken: account.RefreshToken, Origin: store.OriginOf(account.RefreshToken),
		}
		sealer, err := s.envelope.Sealer(ctx, user)
		if err != nil {
			return nil, err
		}
		g.Sealed = store.SealTokens(sealer, tokens, g.Binding())
		out[i] = testGrant{g, tokens}
	}
	return out, nil
}

const batch = 1000

func (s *site) insert(ctx context.Context, db string, grants []testGrant) error {
	c := s.client.Database(db).Collection("grants")
	for part := range slices.Chunk(grants, batch) {
		docs := make([]*store.Grant, len(part))
		for i, g := range part {
			docs[i] = g.Grant
		}
		if _, err := c.InsertMany(ctx, docs); err != nil {
			return fmt.Errorf("inserting grants: %w", err)
		}
	}
	return nil
}

// schedule puts the schedules of stored grants into the stream.
func (s *site) schedule(ctx context.Context, grants []testGrant) error {
	return each(ctx, 256, len(grants), func(i int) error {
		g := grants[i]
		return s.dispatcher.Postpone(ctx, events.RefreshDue{
			GrantID: g.ID, BrokerType: g.BrokerType, Version: g.Version, DueAt: g.Due.At, ExpiresAt: *g.Access.ExpiresAt, Call: true,
		}, g.Due.At)
	})
}

// each calls do with every number below n, several at a time, until one fails or ctx ends.
func each(ctx context.Context, callers, n int, do func(i int) error) error {
	group, going := errgroup.WithContext(ctx)
	group.SetLimit(callers)
	for i := 0; i < n && going.Err() == nil; i++ {
		group.Go(func() error { return do(i) })
	}
	return cmp.Or(group.Wait(), ctx.Err())
}

// timed returns how many a second were done.
func timed(n int, do func() error) (rate float64, err error) {
	begun := time.Now()
	err = do()
	return float64(n) / time.Since(begun).Seconds(), err
}

// stallTimeout is how long nothing may happen before a measurement is given up.
const stallTimeout = 2 * time.Minute

type eventCounter struct {
	sub  *nats.Subscription
	n    atomic.Int64
	last atomic.Int64 // when the last came, Unix nanoseconds
}

func (s *site) countEvents(kind string) (h *eventCounter, err error) {
	h = &eventCounter{}
	h.sub, err = s.nc.Subscribe(s.subjects.LifecycleAll(kind), func(*nats.Msg) {
		h.last.Store(time.Now().UnixNano())
		h.n.Add(1)
	})
	if err == nil {
		err = h.sub.SetPendingLimits(-1, -1)
	}
	if err == nil {
		err = s.nc.Flush()
	}
	if err != nil {
		return nil, fmt.Errorf("listening to events: %w", err)
	}
	return h, nil
}

func (h *eventCounter) await(ctx context.Context, n int) (time.Time, error) {
	defer func() { _ = h.sub.Unsubscribe() }() // fails on a closed connection only
	err := awaitCount(ctx, n, often, "events came", func() (int, error) { return int(h.n.Load()), nil })
	return time.Unix(0, h.last.Load()), err
}

// How often awaitCount looks: at something that costs nothing, and at something that costs what is measured.
const (
	often  = 5 * time.Millisecond
	seldom = 200 * time.Millisecond
)

func awaitCount(ctx context.Context, n int, every time.Duration, what string, count func() (int, error)) error {
	for before, since := 0, time.Now(); ; {
		got, err := count()
		if err != nil || got >= n {
			return err
		}
		if got > before {
			before, since = got, time.Now()
		}
		if time.Since(since) > stallTimeout {
			return fmt.Errorf("%d of %d %s, and no more for %s", got, n, what, stallTimeout)
		}
		if err := pause.For(ctx, every); err != nil {
			return err
		}
	}
}

// backlog lets the workers handle n messages of a subject that all wait before the first is
// handled, and returns how many a second they handled, until the last event of a kind. put
// publishes the messages.
func (s *site) backlog(ctx context.Context, stream, subject, kind string, n int, put func() error) (rate float64, err error) {
	durable := streams.Durable(subject)
	if _, err := s.js.PauseConsumer(ctx, stream, durable, time.Now().Add(24*time.Hour)); err != nil {
		return 0, fmt.Errorf("pausing %s: %w", durable, err)
	}
	h, err := s.countEvents(kind)
	if err != nil {
		return 0, err
	}
	if err := put(); err != nil {
		return 0, err
	}
	if err := s.awaitPending(ctx, stream, durable, n); err != nil {
		return 0, err
	}
	// At the end of a pause NATS answers the pull requests of workers; when a pause is ended
	// early it waits for new ones.
	begun := time.Now().Add(300 * time.Millisecond)
	if _, err := s.js.PauseConsumer(ctx, stream, durable, begun); err != nil {
		return 0, fmt.Errorf("ending the pause of %s: %w", durable, err)
	}
	last, err := h.await(ctx, n)
	return float64(n) / max(last.Sub(begun), time.Millisecond).Seconds(), err
}

func (s *site) awaitPending(ctx context.Context, stream, durable string, n int) error {
	return awaitCount(ctx, n, often, "messages are pending in "+stream, func() (int, error) {
		consumer, err := s.js.Consumer(ctx, stream, durable)
		if err != nil {
			return 0, fmt.Errorf("reading the backlog: %w", err)
		}
		return int(consumer.CachedInfo().NumPending), nil
	})
}

func (s *site) refresh(ctx context.Context, n int) (rate float64, err error) {
	return s.refreshFrom(ctx, n, func() error { return nil })
}

// refreshFrom calls begin when all is ready but the schedules.
func (s *site) refreshFrom(ctx context.Context, n int, begin func() error) (rate float64, err error) {
	grants, err := s.grants(ctx, n, func(int) time.Time { return time.Now() })
	if err != nil {
		return 0, err
	}
	if err := s.insert(ctx, s.cfg.MongoDB.Database, grants); err != nil {
		return 0, err
	}
	return s.backlog(ctx, s.subjects.RefreshStream(), s.subjects.RefreshDue(), events.TokenRefreshed, n, func() error {
		if err := begin(); err != nil {
			return err
		}
		return s.schedule(ctx, grants)
	})
}

func (s *site) connect(ctx context.Context, n int) (rate float64, err error) {
	return s.backlog(ctx, s.subjects.IntegrationStream(), s.subjects.Connected(), events.TokenStored, n, func() error {
		for range n {
			if _, err := s.js.PublishAsync(s.subjects.Connected(), bench.ConnectOf(s.user()), jetstream.WithStallWait(time.Minute)); err != nil {
				return fmt.Errorf("publishing connects: %w", err)
			}
		}
		return nil
	})
}
