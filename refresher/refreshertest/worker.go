package refreshertest

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim/kmssimtest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/streams"
)

// Worker is one worker's parts, with a database connection and keys in memory
// of its own.
type Worker struct {
	*refresher.Refresher
	Dispatcher   *refresher.Dispatcher
	Reconciler   *refresher.Reconciler
	Settler      refresher.Settler
	Store        *store.Store
	Envelope     *envelope.Envelope
	Fingerprints *store.Fingerprints
	Queue        streams.DueQueue // as reconciliation sees it
	Topology     *Topology
}

// Topology is what reconciliation knows of the streams; tests answer in their place.
type Topology struct {
	IdentitiesFunc func(ctx context.Context) ([]string, error)
	DueQueuesFunc  func(ctx context.Context) ([]streams.DueQueue, error)
}

// Identities calls IdentitiesFunc.
func (t *Topology) Identities(ctx context.Context) ([]string, error) { return t.IdentitiesFunc(ctx) }

// DueQueues calls DueQueuesFunc.
func (t *Topology) DueQueues(ctx context.Context) ([]streams.DueQueue, error) {
	return t.DueQueuesFunc(ctx)
}

// Worker builds a worker, from what change makes of its parts: one of them has to set
// ParkAnswer.
func (r *Rig) Worker(id string, change ...func(*refresher.Options)) *Worker {
	r.T.Helper()
	ctx, d := r.T.Context(), config.Default()
	db, err := store.Open(ctx, store.Options{URI: secret.New(r.DB.URI()), Database: r.DatabaseName, Timeout: r.DBTimeout})
	require.NoError(r.T, err)
	r.T.Cleanup(func() { _ = db.Close(context.Background()) })
	require.NoError(r.T, db.Ensure(ctx))
	w := &Worker{Store: db}
	r.workers = append(r.workers, w)
	w.Envelope, err = envelope.New(envelope.Options{KMS: r.KMS.Client(kmssimtest.Once), Store: db, KeyID: "alias/test", Now: r.Clock.Now})
	require.NoError(r.T, err)
	w.Fingerprints, err = store.NewFingerprints(store.FingerprintOptions{Store: db, Envelope: w.Envelope, Log: r.Log})
	require.NoError(r.T, err)
	w.Settler, err = refresher.NewSettler(refresher.SettlerOptions{Config: atOnce(), Subjects: r.Subjects, Now: r.Clock.Now, NewID: uuid.NewString, Rand: half})
	require.NoError(r.T, err)
	reg, remember := prometheus.NewRegistry(), 24*time.Hour
	w.Dispatcher, err = refresher.NewDispatcher(refresher.DispatcherOptions{
		JetStream: r.JS, Store: db, Subjects: r.Subjects, Horizon: d.Refresh.Horizon, Remember: remember, Now: r.Clock.Now, Log: r.Log, Metrics: reg,
	})
	require.NoError(r.T, err)
	mesh, err := refresher.NewMesh(refresher.MeshOptions{URL: r.MeshURL, Timeout: Patience, Now: r.Clock.Now})
	require.NoError(r.T, err)
	deps := refresher.Options{
		Store: db, Envelope: w.Envelope, Fingerprints: w.Fingerprints, JetStream: r.JS, Mesh: mesh, Limits: d.Limits, Credentials: d.Refresh.Credentials, Hold: d.Refresh.Hold, Concurrency: d.Refresh.Concurrency,
		Settler: w.Settler, Dispatcher: w.Dispatcher, Subjects: r.Subjects, WorkerID: id, NewID: uuid.NewString, Now: r.Clock.Now,
		Lease: d.Refresh.Lease, CallAndSave: d.CallAndSave(), ClockSkew: d.Worker.ClockSkew, SendAccess: d.Mesh.AccessTokenBrokers, RefusedPause: d.Tokens.RefusedPause, Remember: remember,
		Resolve: func(context.Context, string) error { return nil }, Log: r.Log, Metrics: reg,
	}
	for _, f := range change {
		f(&deps)
	}
	w.Refresher, err = refresher.New(deps)
	require.NoError(r.T, err)
	w.Topology = &Topology{r.Streams.Identities, func(context.Context) ([]streams.DueQueue, error) { return []streams.DueQueue{w.Queue}, nil }}
	w.Reconciler, err = refresher.NewReconciler(refresher.ReconcilerOptions{Refresher: w.Refresher, Config: d.Reconcile, Horizon: d.Refresh.Horizon, Streams: w.Topology})
	require.NoError(r.T, err)
	require.NoError(r.T, w.Reconciler.Start(ctx))
	return w
}

func half() float64 { return 0.5 }

// PlanBy has a worker plan by a configuration: the default one with the changes, and without
// lead and clock skew unless change sets them.
func PlanBy(change func(*config.Config)) func(*refresher.Options) {
	return func(o *refresher.Options) {
		c := atOnce()
		change(&c)
		var err error
		o.Settler, err = refresher.NewSettler(refresher.SettlerOptions{Config: c, Subjects: o.Subjects, Now: o.Now, NewID: o.NewID, Rand: half})
		if err != nil {
			panic(err) // nothing is missing
		}
	}
}
