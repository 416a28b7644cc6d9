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
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
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
	s.subjects = s.cfg.NATS.Subjects()
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
	identities, err := s.store.StreamIdentity(ctx)
	s.dispatcher.SetStreams(strings.Split(identities, ","))
	return s, err
}

func database(prefix string) string {
	return bench.DatabaseBegins + strings.TrimPrefix(prefix, bench.PrefixBegins)
}

// work stops workers, or starts them at once, until there are n.
func (s *site) work(ctx context.Context, n int) (failed error) {
	for len(s.workers) > n {
		last := s.workers[len(s.workers)-1]
		s.workers = s.workers[:len(s.workers)-1]
		failed = errors.Join(failed, last.stop())
	}
	if failed != nil || len(s.workers) == n {
		return failed
	}
	more := make([]*process, n-len(s.workers))
	failed = each(ctx, len(more), len(more), func(i int) (err error) {
		id := fmt.Sprintf("worker-%d", len(s.workers)+i)
		more[i], err = startWorker(ctx, s.Exe, filepath.Join(s.dir, s.subjects.Prefix+"-"+id+".log"), append(slices.Clone(s.env), "LATCHKEY_WORKER_ID="+id))
		return err
	})
	s.workers = append(s.workers, slices.DeleteFunc(more, func(w *process) bool { return w == nil })...)
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
