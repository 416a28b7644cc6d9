package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/latchkey/latchkey/cmd/latchkey/credentials"
	"github.com/latchkey/latchkey/cmd/latchkey/operator"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/handlers/tokens"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// assemble builds the parts, each from those before it.
func (w *worker) assemble(ctx context.Context) (err error) {
	w.reg.MustRegister(buildInfo(), credentials.Watch(credentials.Of(w.cfg, os.Environ())))
	if err := w.openEnvelope(ctx); err != nil {
		return err
	}
	if err := w.openConnectKeys(ctx); err != nil {
		return err
	}
	w.audit, err = AuditLog(w.cfg, w.js, w.cfg.Worker.ID, w.now, w.db, w.log, w.reg)
	if err != nil {
		return err
	}
	w.letters, err = handlers.NewDeadLetters(handlers.DeadLettersOptions{JetStream: w.js, Envelope: w.envelope, Keys: w.keys, Grants: w.db.ByUser, Subjects: w.subj, Now: w.now, NewID: newID, Log: w.log})
	if err != nil {
		return err
	}
	rejections, err := handlers.NewRejections(handlers.RejectionsOptions{Conn: w.js.Conn(), Subjects: w.subj, Now: w.now, NewID: newID, Source: w.source, Log: w.log})
	if err != nil {
		return err
	}
	w.membership, err = refresher.NewMembership(refresher.MembershipOptions{Store: w.db, Run: newID(), WorkerID: w.cfg.Worker.ID, Now: w.now, Log: w.log, Metrics: w.reg})
	if err != nil {
		return err
	}
	_ = w.membership.Heartbeat(ctx) // before there is work; a failure is logged and the next beat follows
	connector, err := w.assembleRefresher(rejections)
	if err != nil {
		return err
	}
	w.page, err = w.newPage()
	if err != nil {
		return err
	}
	if err := w.assembleTokens(); err != nil {
		return err
	}
	return w.route(connector, rejections)
}

// openEnvelope sets up envelope encryption and makes the first data key: a wrong key
// id or a missing permission shows at once.
func (w *worker) openEnvelope(ctx context.Context) (err error) {
	calls := w.counter("kms_calls_total", "Calls to KMS by operation and result.", "operation", "result")
	w.envelope, err = Envelope(ctx, w.cfg, w.db, w.now, func(operation string, err error) {
		result := "ok"
		if err != nil {
			result = "error"
		}
		calls.WithLabelValues(operation, result).Inc()
		w.kms.record(w.now(), err)
	})
	if err != nil {
		return err
	}
	if _, err := w.envelope.Sealer(ctx, ""); err != nil {
		return fmt.Errorf("making a data key (check kms.key_id, kms.region and the permissions): %w", err)
	}
	return nil
}

// openConnectKeys loads the keys to which publishers seal connects.
func (w *worker) openConnectKeys(ctx context.Context) (err error) {
	cfg := w.cfg
	w.keys, err = handlers.NewConnectKeys(handlers.ConnectKeysOptions{Store: w.db, Envelope: w.envelope, Config: cfg.Connect, CacheAge: cfg.DataKeys.CacheAge, ClockSkew: cfg.Worker.ClockSkew, Now: w.now, Log: w.log})
	if err != nil {
		return err
	}
	return w.keys.Maintain(ctx)
}

// assembleRefresher builds what refreshes grants, and the connector: each of the two
// calls the other.
func (w *worker) assembleRefresher(rejections *handlers.Rejections) (*handlers.Connector, error) {
	cfg, env, dead := w.cfg, w.envelope, w.letters
	connects := w.counter("connects_total", "Connects that were acknowledged, by what became of them.", "outcome")
	prints, err := store.NewFingerprints(store.FingerprintOptions{Store: w.db, Envelope: env, Log: w.log})
	if err != nil {
		return nil, err
	}
	settler, err := refresher.NewSettler(refresher.SettlerOptions{Config: cfg, Subjects: w.subj, Now: w.now, NewID: newID, Rand: rand.Float64, Source: w.source})
	if err != nil {
		return nil, err
	}
	dispatcher, err := refresher.NewDispatcher(refresher.DispatcherOptions{
		JetStream: w.js, Store: w.db, Subjects: w.subj, Horizon: cfg.Refresh.Horizon, Remember: cfg.Retention.Revocations,
		Now: w.now, Log: w.log, Metrics: w.reg, Tracer: w.traces.tracer,
	})
	if err != nil {
		return nil, err
	}
	mesh, err := refresher.NewMesh(refresher.MeshOptions{URL: cfg.Mesh.URL, ClientID: cfg.Mesh.ClientID, ClientSecret: cfg.Mesh.ClientSecret, Timeout: cfg.Mesh.Timeout, Now: w.now})
	if err != nil {
		return nil, err
	}
	var r *refresher.Refresher // which needs the connector
	connector, err := handlers.NewConnector(handlers.ConnectorOptions{
		Store: w.db, Envelope: env, Fingerprints: prints, Settler: settler, Dispatcher: dispatcher,
		ParkLeftovers:    func(ctx context.Context, g *store.Grant) *store.Grant { return r.ParkLeftovers(ctx, g) },
		EraseDeadLetters: dead.Erase, Audit: w.audit, Remember: cfg.Retention.Revocations, RemoveAtMesh: cfg.Mesh.RemoveOnDisconnect,
		Rejections: rejections, Outcomes: connects, Log: w.log,
	})
	if err != nil {
		return nil, err
	}
	w.work = prometheus.NewRegistry()
	r, err = refresher.New(refresher.Options{
		Store: w.db, Envelope: env, Fingerprints: prints, JetStream: w.js, Mesh: mesh, Settler: settler, Dispatcher: dispatcher, Subjects: w.subj,
		Limits: cfg.Limits, Workers: w.membership.Workers, Credentials: cfg.Refresh.Credentials, Hold: cfg.Refresh.Hold, Concurrency: cfg.Refresh.Concurrency,
		WorkerID: cfg.Worker.ID, NewID: newID, Now: w.now, Lease: cfg.Refresh.Lease, CallAndSave: cfg.CallAndSave(), ClockSkew: cfg.Worker.ClockSkew,
		RefusedPause: cfg.Tokens.RefusedPause, Remember: cfg.Retention.Revocations, SendAccess: cfg.Mesh.AccessTokenBrokers, Resolve: connector.Resolve, ParkAnswer: dead.ParkAnswer, Audit: w.audit, Log: w.log, Metrics: w.work,
	})
	if err != nil {
		return nil, err
	}
	w.refresher, w.dispatcher = r, dispatcher
	if w.grantStats, err = refresher.NewGrantStats(refresher.GrantStatsOptions{Refresher: r, Config: cfg.Reconcile}); err != nil {
		return nil, err
	}
	w.reg.MustRegister(w.work)
	w.reconciler, err = refresher.NewReconciler(refresher.ReconcilerOptions{Refresher: r, Config: cfg.Reconcile, Horizon: cfg.Refresh.Horizon, Streams: watched{w.streams, w.foreign}})
	return connector, err
}

// assembleTokens builds the service that answers token requests.
func (w *worker) assembleTokens() (err error) {
	cfg := w.cfg
	w.tokens, err = tokens.New(tokens.Options{
		Store: w.db, Refresher: w.refresher, Subjects: w.subj, Config: cfg.Tokens, ClockSkew: cfg.Worker.ClockSkew, Keys: w.keys,
		Audit:    tokens.Audit{Log: w.audit, Required: cfg.Audit.Mode == config.AuditRequired, Timeout: cfg.Audit.Timeout, RequestInfo: cfg.Audit.RequestInfo},
		Metadata: operator.Metadata(cfg.Worker.ID), Stats: w.page.Work,
		Tracer: w.traces.tracer, Now: w.now, Log: w.log, Metrics: w.reg,
	})
	return err
}

// route builds the router: which messages the worker receives and what handles each.
func (w *worker) route(connector *handlers.Connector, rejections *handlers.Rejections) (err error) {
	cfg := w.cfg
	postponed := w.counter("refreshes_postponed_total", "Refreshes put off before any call, by cause.", "cause")
	sources := map[string]handlers.Source{
		w.subj.Connected():    {Stream: w.subj.IntegrationStream(), Concurrency: cfg.Connect.Concurrency},
		w.subj.Disconnected(): {Stream: w.subj.IntegrationStream(), Concurrency: cfg.Connect.Concurrency},
		w.subj.RecoveryAll():  {Stream: w.subj.RecoveryStream(), Concurrency: cfg.Refresh.Concurrency},
	}
	routes := []handlers.Route{
		{Name: events.IntegrationConnected, Subject: w.subj.Connected(), Handle: handlers.Connected(connector, w.keys, cfg.Connect)},
		{Name: events.IntegrationDisconnected, Subject: w.subj.Disconnected(), Handle: handlers.Disconnected(connector)},
		{Name: handlers.RecoveryName, Subject: w.subj.RecoveryAll(), Handle: handlers.Recovery(w.refresher)},
	}
	refreshDue := handlers.RefreshDue(w.refresher, w.dispatcher, w.now, rand.Float64, postponed)
	for _, p := range w.subj.RefreshPartitions() {
		// More than run and wait at once, so that one is always free to look at the next
		// message.
		sources[p.Due] = handlers.Source{Stream: p.Stream, Concurrency: 5 * cfg.Refresh.Concurrency, Shared: "due"}
		sources[p.Urgent] = handlers.Source{Stream: p.Stream, Concurrency: cfg.Refresh.Concurrency, Shared: "urgent"}
		for _, subject := range []string{p.Due, p.Urgent} {
			routes = append(routes, handlers.Route{Name: events.RefreshDueName, Subject: subject, Handle: refreshDue, Delayed: true})
		}
	}
	w.subscriber, err = handlers.NewSubscriber(handlers.SubscriberOptions{Streams: w.streams, AckWait: cfg.Messages.AckWait, Sources: sources, Log: w.log})
	if err != nil {
		return err
	}
	w.router, err = handlers.NewRouter(handlers.RouterOptions{
		Routes: routes, Subscriber: w.subscriber, Messages: cfg.Messages, DeadLetters: w.letters, Rejections: rejections, Grace: cfg.Worker.Grace,
		Tracer: w.traces.tracer, Log: w.log, Metrics: w.reg,
	})
	return err
}

// counter returns a new counter of the worker, with labels.
func (w *worker) counter(name, help string, labels ...string) *prometheus.CounterVec {
	return promauto.With(w.reg).NewCounterVec(prometheus.CounterOpts{Namespace: "latchkey", Name: name, Help: help}, labels)
}
