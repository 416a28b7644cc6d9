package refresher_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/options/optionstest"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/refresher/refreshertest"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

func TestEveryRequiredOptionIsNamed(t *testing.T) {
	cfg, db, js := config.Default(), &store.Store{}, &struct{ jetstream.JetStream }{}
	newID, one, log := func() string { return "id" }, func() float64 { return 1 }, zap.NewNop()
	registry := func() prometheus.Registerer { return prometheus.NewRegistry() }
	limits := refresher.LimitsOptions{Config: cfg.Limits, Credentials: cfg.Refresh.Credentials, Now: time.Now, OnBreaker: func(string, bool) {}}
	dispatcher := refresher.DispatcherOptions{JetStream: js, Store: db, Horizon: time.Hour, Now: time.Now, Log: log, Metrics: registry()}
	mesh := refresher.MeshOptions{URL: "https://mesh", Timeout: time.Second, Now: time.Now}
	settler := refresher.SettlerOptions{Config: cfg, Now: time.Now, NewID: newID, Rand: one}
	whole := refresher.Options{
		Store: db, Envelope: &envelope.Envelope{}, Fingerprints: &store.Fingerprints{}, JetStream: js, Mesh: must(refresher.NewMesh(mesh)), Settler: must(refresher.NewSettler(settler)),
		Dispatcher: &refresher.Dispatcher{}, WorkerID: "a", NewID: newID, Now: time.Now, Limits: cfg.Limits, Credentials: cfg.Refresh.Credentials, Concurrency: 1, Lease: time.Minute, CallAndSave: time.Second,
		Resolve: func(context.Context, string) error { return nil }, ParkAnswer: func(context.Context, *store.Grant, string, []byte) error { return nil }, Log: log, Metrics: registry(),
	}

	optionstest.Required(t, refresher.NewSettler, settler, "Config", "Now", "NewID", "Rand")
	optionstest.Required(t, refresher.NewMesh, mesh, "URL", "Timeout", "Now")
	optionstest.Required(t, refresher.NewLimits, limits, "Config", "Credentials", "Now", "OnBreaker")
	optionstest.Required(t, refresher.NewQueue, refresher.QueueOptions{Limits: must(refresher.NewLimits(limits)), Slots: 1, Room: 1, Now: time.Now}, "Limits", "Slots", "Room", "Now")
	optionstest.Required(t, refresher.NewDispatcher, dispatcher, "JetStream", "Store", "Horizon", "Now", "Log", "Metrics")
	optionstest.Required(t, refresher.NewMembership, refresher.MembershipOptions{Store: &beats{}, Run: "a", WorkerID: "a", Now: time.Now, Log: log, Metrics: registry()},
		"Store", "Run", "WorkerID", "Now", "Log", "Metrics")
	optionstest.Required(t, refresher.New, whole, "Store", "Envelope", "Fingerprints", "JetStream", "Mesh", "Settler", "Dispatcher", "WorkerID", "NewID", "Now",
		"Limits", "Credentials", "Concurrency", "Lease", "CallAndSave", "Resolve", "ParkAnswer", "Log", "Metrics")
	whole.Metrics = registry()
	r := must(refresher.New(whole))
	optionstest.Required(t, refresher.NewReconciler, refresher.ReconcilerOptions{Refresher: r, Config: cfg.Reconcile, Horizon: time.Hour, Streams: &refreshertest.Topology{}}, "Refresher", "Config", "Horizon", "Streams")
	optionstest.Required(t, refresher.NewGrantStats, refresher.GrantStatsOptions{Refresher: r, Config: cfg.Reconcile}, "Refresher", "Config")
}
