package refresher_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim/kmssimtest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/streams"
)

// patience bounds every wait. It is no expectation of speed.
const patience = time.Minute

// rig is all that a Refresher works with: real protocols, a clock of its own.
type rig struct {
	t        *testing.T
	clock    *clock
	subjects events.Subjects
	broker   *enginestest.Broker
	db       *enginestest.Database
	database string
	raw      *mongo.Database
	js       jetstream.JetStream
	streams  *streams.Topology
	kms      *kmssim.KMS
	kmsURL   string
	sim      *meshsim.Server
	meshURL  string
	// dbTimeout is the workers' mongodb.timeout.
	dbTimeout time.Duration
	logs      *observer.ObservedLogs
	log       *zap.Logger

	// held takes the calls that hold stopped; each goes on when let receives.
	held, let chan struct{}
	// ended takes the error of a refresh in the background.
	ended chan error

	workers []*worker
}

func newRig(t *testing.T) *rig {
	t.Helper()
	if testing.Short() {
		t.Skip("plays against the engines: not in short mode")
	}
	r := &rig{
		t: t, clock: &clock{now: store.Milli(time.Now())}, broker: enginestest.NATS(t), db: enginestest.MongoDB(t),
		database: enginestest.Name(t), held: make(chan struct{}, 1), let: make(chan struct{}, 1), dbTimeout: 2 * time.Second,
	}
	if r.broker.URL() != "" {
		r.subjects.Prefix = strings.ReplaceAll(r.database, "_", "-")
	}
	core, logs := observer.New(zapcore.DebugLevel)
	r.log, r.logs = zap.New(core), logs

	nc, err := nats.Connect(r.broker.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	r.js, err = jetstream.New(nc, jetstream.WithDefaultTimeout(2*time.Second))
	require.NoError(t, err)
	d := config.Default()
	d.NATS.Prefix = r.subjects.Prefix
	memory, err := store.Open(t.Context(), store.Options{URI: text(r.db.URI()), Database: r.database, Timeout: 5 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = memory.Close(ctx)
	})
	r.streams = streams.New(r.js, memory, d, r.log)
	_, err = r.streams.Ensure(t.Context())
	require.NoError(t, err)

	client, err := mongo.Connect(options.Client().ApplyURI(r.db.URI()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	r.raw = client.Database(r.database)

	server := kmssimtest.Start(t, "alias/test")
	r.kms, r.kmsURL = server.KMS, server.URL

	r.sim, err = meshsim.New(meshsim.Config{Seed: text("seed"), Clock: r.clock.Now, Sleep: func(ctx context.Context, _ time.Duration) error {
		r.held <- struct{}{}
		select {
		case <-r.let:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}})
	require.NoError(t, err)
	meshServer := httptest.NewServer(r.sim)
	t.Cleanup(func() { require.NoError(t, r.sim.Close()); meshServer.Close() })
	r.meshURL = meshServer.URL
	t.Cleanup(r.noTokenInLogs)
	return r
}

// worker is one worker's parts, with a database connection and keys in memory
// of its own.
type worker struct {
	*refresher.Refresher
	dispatcher *refresher.Dispatcher
	reconciler *refresher.Reconciler
	settler    refresher.Settler
	store      *store.Store
	envelope   *envelope.Envelope
	prints     *store.Fingerprints
	queue      streams.DueQueue // as reconciliation sees it
	topology   *topology
}

// topology is what reconciliation knows of the streams; tests answer in their place.
type topology struct {
	identities func(ctx context.Context) ([]string, error)
	queues     func(ctx context.Context) ([]streams.DueQueue, error)
}

func (t *topology) Identities(ctx context.Context) ([]string, error) { return t.identities(ctx) }

func (t *topology) DueQueues(ctx context.Context) ([]streams.DueQueue, error) { return t.queues(ctx) }

func (r *rig) worker(id string, change ...func(*refresher.Deps)) *worker {
	r.t.Helper()
	ctx, d := r.t.Context(), config.Default()
	db, err := store.Open(ctx, store.Options{URI: text(r.db.URI()), Database: r.database, Timeout: r.dbTimeout})
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = db.Close(context.Background()) })
	require.NoError(r.t, db.Ensure(ctx))
	w := &worker{store: db}
	r.workers = append(r.workers, w)
	w.envelope = envelope.New(envelope.Options{
		KMS: kms.NewFromConfig(r.kms.Config(r.kmsURL), func(o *kms.Options) { o.Retryer = aws.NopRetryer{} }), Store: db, KeyID: "alias/test", Now: r.clock.Now,
	})
	w.prints = store.NewFingerprints(store.FingerprintOptions{Store: db, Envelope: w.envelope, Log: r.log})
	w.settler = settler(r.clock, 0.5)
	w.settler.Subjects, w.settler.NewID = r.subjects, uuid.NewString
	reg := prometheus.NewRegistry()
	w.dispatcher = refresher.NewDispatcher(refresher.DispatcherOptions{
		JetStream: r.js, Store: db, Subjects: r.subjects, Horizon: d.Refresh.Horizon, Remember: day, Now: r.clock.Now, Log: r.log, Metrics: reg,
	})
	mesh := refresher.NewMesh(refresher.MeshOptions{URL: r.meshURL, Timeout: patience, Now: r.clock.Now})
	deps := refresher.Deps{
		Store: db, Envelope: w.envelope, Fingerprints: w.prints, JetStream: r.js, Mesh: mesh, Limits: d.Limits, Credentials: d.Refresh.Credentials, Hold: d.Refresh.Hold, Concurrency: d.Refresh.Concurrency,
		Settler: w.settler, Dispatcher: w.dispatcher, Subjects: r.subjects, WorkerID: id, NewID: uuid.NewString, Now: r.clock.Now,
		Lease: d.Refresh.Lease, CallAndSave: d.CallAndSave(), ClockSkew: d.Worker.ClockSkew, SendAccess: d.Mesh.AccessTokenBrokers, RefusedPause: d.Tokens.RefusedPause, Remember: day,
		Changed: func(context.Context, string) error { return nil }, Log: r.log, Metrics: reg,
	}
	deps.ParkAnswer = r.letters(w).ParkAnswer
	for _, f := range change {
		f(&deps)
	}
	w.Refresher = refresher.New(deps)
	w.topology = &topology{r.streams.Identities, func(context.Context) ([]streams.DueQueue, error) { return []streams.DueQueue{w.queue}, nil }}
	w.reconciler = refresher.NewReconciler(w.Refresher, d.Reconcile, d.Refresh.Horizon, w.topology)
	require.NoError(r.t, w.reconciler.Start(ctx))
	return w
}

func (r *rig) letters(w *worker) *handlers.DeadLetters {
	r.t.Helper()
	letters, err := handlers.NewDeadLetters(handlers.DeadLettersOptions{JetStream: r.js, Envelope: w.envelope, Subjects: r.subjects, Now: r.clock.Now, NewID: uuid.NewString, Log: r.log})
	require.NoError(r.t, err)
	return letters
}

// connect has the simulator issue tokens and stores their grant, due now, as
// if it had just been scheduled.
func (r *rig) connect(w *worker, spec meshsim.ConnectSpec, change ...func(*store.Grant)) *store.Grant {
	r.t.Helper()
	if spec.BrokerType == "" {
		spec.BrokerType = "coinbase"
	}
	connected, err := r.sim.Connect(spec)
	require.NoError(r.t, err)
	now := r.clock.Now()
	chain, _ := r.sim.Ledger().Chain(connected.Accounts[0].AccountID)
	g := &store.Grant{
		UserID: "user", BrokerType: spec.BrokerType, BrokerName: spec.BrokerType, State: store.Active, ConnectedAt: now, Version: 1,
		Due:    &store.Due{At: now, Action: store.Refresh, Stream: w.dispatcher.Streams()[0]},
		Access: lasting(now, meshsim.DefaultAccessLifetime), Refresh: lasting(now, meshsim.DefaultRefreshLifetime),
	}
	set := store.TokenSet{RefreshToken: connected.Accounts[0].RefreshToken}
	ids := make([]string, len(connected.Accounts))
	for i, a := range connected.Accounts {
		ids[i] = a.AccountID
		g.Accounts = append(g.Accounts, store.Account{ID: a.AccountID, Name: chain.Accounts[i].Name, ExpiresAt: g.Access.ExpiresAt})
		set.Accounts = append(set.Accounts, store.AccountToken{AccountID: a.AccountID, AccessToken: a.AccessToken})
	}
	g.ID = store.GrantID(g.UserID, g.BrokerType, ids...)
	for _, f := range change {
		f(g)
	}
	sealer, err := w.prints.Sealer(r.t.Context(), "user")
	require.NoError(r.t, err)
	sealer.SealTo(g, set, now, true)
	require.NoError(r.t, w.store.Insert(r.t.Context(), g))
	return g
}

// refuseCredentials has Mesh refuse the client's credentials, until its faults are
// cleared.
func (r *rig) refuseCredentials() {
	r.t.Helper()
	_, err := r.sim.Inject(meshsim.Fault{Action: meshsim.HTTPStatus(401)})
	require.NoError(r.t, err)
}

// due is the message that says a grant is due.
func due(g *store.Grant) events.RefreshDue {
	return events.RefreshDue{GrantID: g.ID, BrokerType: g.BrokerType, Version: g.Version, DueAt: g.Due.At}
}

func (r *rig) get(w *worker, id string) *store.Grant {
	r.t.Helper()
	r.sent()
	g, err := w.store.Get(r.t.Context(), id)
	require.NoError(r.t, err)
	return g
}

// sent waits until everything is sent that workers have begun to send.
func (r *rig) sent() {
	for _, w := range r.workers {
		w.dispatcher.Wait()
	}
}

// hold stops the next refresh of an account once the institution has done its
// work, before the answer goes out.
func (r *rig) hold(account string) {
	r.t.Helper()
	require.NoError(r.t, r.sim.Script(account, meshsim.Delay(1, 1).AfterWork()))
}

// inBackground handles a due message and returns where its error arrives.
func (r *rig) inBackground(w *worker, m events.RefreshDue) <-chan error {
	done := make(chan error, 1)
	go func() { done <- w.Due(context.Background(), m) }()
	return done
}

func (r *rig) wait(c <-chan struct{}) {
	r.t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		require.FailNow(r.t, "waited in vain")
	}
}

func (r *rig) result(c <-chan error) error {
	r.t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(patience):
		require.FailNow(r.t, "waited in vain")
		return nil
	}
}

func (r *rig) eventually(condition func() bool, what string) {
	r.t.Helper()
	require.Eventually(r.t, condition, patience, 10*time.Millisecond, what)
}

// failWrites has the database refuse replacements of grants, with an answer.
func (r *rig) failWrites(fail bool) {
	r.t.Helper()
	if !fail {
		r.db.Proxy().FailWrites(0, nil)
		return
	}
	r.db.Proxy().FailWrites(91, func(command, collection string) bool { return command == "update" && collection == "grants" })
}

// calls counts the refreshes that arrived at Mesh.
func (r *rig) calls() int { return len(r.sim.Ledger().Requests) }

// soundTokens checks that the stored tokens of a grant are the ones that the
// institution takes, and that no token was spent twice.
func (r *rig) soundTokens(w *worker, id string) {
	r.t.Helper()
	require.NoError(r.t, r.sim.Settle(r.t.Context()))
	set, err := w.Tokens(r.t.Context(), r.get(w, id))
	require.NoError(r.t, err)
	ledger := r.sim.Ledger()
	valid, why := ledger.RefreshTokenState(set.RefreshToken)
	require.True(r.t, valid, why)
	for _, a := range set.Accounts {
		valid, why := ledger.AccessTokenState(a.AccessToken)
		require.True(r.t, valid, why)
	}
	require.Empty(r.t, ledger.DoubleSpends())
}

// messages returns what lies in a stream under a subject.
func (r *rig) messages(stream, subject string) []*jetstream.RawStreamMsg {
	r.t.Helper()
	r.sent()
	s, err := r.js.Stream(r.t.Context(), stream)
	require.NoError(r.t, err)
	var out []*jetstream.RawStreamMsg
	for seq := uint64(1); ; {
		m, err := s.GetMsg(r.t.Context(), seq, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return out
		}
		require.NoError(r.t, err)
		out, seq = append(out, m), m.Sequence+1
	}
}

// told lists the events that were published about a user, as "kind: reason".
func (r *rig) told(user string) []string {
	r.t.Helper()
	var out []string
	for _, m := range r.messages(r.subjects.LifecycleStream(), r.subjects.LifecycleAll("token.*")) {
		e, err := events.DecodeLifecycle(m.Data)
		require.NoError(r.t, err)
		if e.Data.UserID == user {
			out = append(out, e.Kind+": "+string(e.Data.Reason))
		}
	}
	return out
}

// schedule returns the pending schedule of a grant, nil if there is none.
func (r *rig) schedule(id string) *jetstream.RawStreamMsg {
	r.t.Helper()
	all := r.messages(r.subjects.RefreshStream(), r.subjects.RefreshSchedule(id))
	require.LessOrEqual(r.t, len(all), 1, "a schedule replaces the one before")
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// fired returns the due messages of a grant that wait to be handled.
func (r *rig) fired(id string) []events.RefreshDue {
	r.t.Helper()
	var out []events.RefreshDue
	for _, m := range r.messages(r.subjects.RefreshStream(), r.subjects.RefreshDue()) {
		var d events.RefreshDue
		require.NoError(r.t, json.Unmarshal(m.Data, &d))
		if d.GrantID == id {
			out = append(out, d)
		}
	}
	return out
}

// alter changes a stored document behind the workers' back.
func (r *rig) alter(id string, set bson.D) {
	r.t.Helper()
	res, err := r.raw.Collection("grants").UpdateOne(r.t.Context(), bson.D{{Key: "_id", Value: id}}, bson.D{{Key: "$set", Value: set}})
	require.NoError(r.t, err)
	require.Equal(r.t, int64(1), res.MatchedCount)
}

// noTokenInLogs looks for the simulator's tokens, which share a prefix.
func (r *rig) noTokenInLogs() {
	for _, e := range r.logs.All() {
		encoded, err := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()).EncodeEntry(e.Entry, e.Context)
		require.NoError(r.t, err)
		require.NotContains(r.t, encoded.String(), "sim-")
	}
}
