package tokens

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
)

// Refresher is what the service needs of a [refresher.Refresher], which documents the
// methods.
type Refresher interface {
	HasDataKey(g *store.Grant) bool
	Access(ctx context.Context, g *store.Grant) (*store.Grant, *store.AccessTexts, error)
	SuspendedFor(broker string) time.Duration
	RefreshNow(ctx context.Context, g *store.Grant) (*store.Grant, error)
	CompleteMFA(ctx context.Context, g *store.Grant, code secret.Text) (*store.Grant, error)

	// Reports of access tokens that were refused where they were used.
	RefreshRefused(ctx context.Context, g *store.Grant) (*store.Grant, error)
	EndReported(ctx context.Context, g *store.Grant) (*store.Grant, error)
	NextReportIn(g *store.Grant) time.Duration
	CountReport(g *store.Grant, outcome string)
}

// Store is what the service needs of a [store.Store], which documents the methods.
type Store interface {
	ByUser(ctx context.Context, userID string) ([]*store.Grant, error)
	Get(ctx context.Context, id string) (*store.Grant, error)
	RecordUse(ctx context.Context, g *store.Grant) error
}

// Keys are the public keys to which publishers seal connects.
type Keys interface {
	Public(ctx context.Context) (events.TokenKeys, error)
}

// Options of a Service. Subjects, ClockSkew, Audit, Keys, Metadata, Stats and Tracer
// may be zero.
type Options struct {
	Store     Store
	Refresher Refresher
	Subjects  events.Subjects
	Config    config.Tokens
	// ClockSkew is by how much the clocks of callers may differ from Now.
	ClockSkew time.Duration
	// Audit says how answers are recorded; zero: not at all.
	Audit Audit
	// Keys are handed out on request; nil: there are none.
	Keys Keys
	// Metadata describes this worker in $SRV discovery, with INFO and STATS, and what
	// Stats returns with STATS. Anyone who may ask $SRV sees both.
	Metadata map[string]string
	Stats    func() any
	Tracer   tracing.Tracer
	Now      func() time.Time
	Log      *zap.Logger
	Metrics  prometheus.Registerer
}

// Service answers requests for the current tokens of a user.
type Service struct {
	opts      Options
	grants    *grantCache
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	codes     *prometheus.CounterVec

	places       places          // of requests that wait
	turns        turns           // at reading
	flights      flights         // refreshes that requests wait for
	lifetime     context.Context // ends with the service
	end          context.CancelFunc
	atWork       sync.WaitGroup
	noting       sync.Mutex // held while the use of a grant is recorded, and for a pause after that
	inboxes      inboxes
	conn         *nats.Conn
	service      *discovery
	stopWatching func()
}

// New returns a service that answers once Start has returned.
func New(o Options) (*Service, error) {
	if err := options.Require("the token service", o, "Store", "Refresher", "Config", "Now", "Log", "Metrics"); err != nil {
		return nil, err
	}
	known, err := events.NewInboxes(o.Subjects, o.Config.InboxPrefixes...)
	if err != nil {
		return nil, fmt.Errorf("the inboxes of the token service: %w", err)
	}
	t := &Service{
		opts: o, grants: newGrantCache(o.Config.CacheUsers, o.Config.CacheAge, o.Now, o.Store.ByUser), turns: turns{free: o.Config.Concurrency},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "latchkey", Name: "token_requests_total", Help: "Requests for tokens by the code of the answer.",
		}, []string{"code"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "latchkey", Name: "token_request_duration_seconds", Help: "Time from the receipt of a request for tokens to its answer, by the code of the answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"code"}),
		codes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "latchkey", Name: "mfa_codes_total", Help: "Codes of users for refreshes that wait for one, by the code of the answer.",
		}, []string{"code"}),
	}
	t.lifetime, t.end = context.WithCancel(context.Background())
	t.inboxes.Inboxes, t.inboxes.complaints.Interval = known, time.Minute
	t.requests.WithLabelValues(codeOK) // from zero on
	o.Metrics.MustRegister(t.requests, t.durations, t.codes)
	return t, nil
}

// observe counts a request for tokens, and notes how long its answer took.
func (t *Service) observe(code string, took time.Duration) {
	t.requests.WithLabelValues(code).Inc()
	t.durations.WithLabelValues(code).Observe(took.Seconds())
}

// codeOK is the outcome of a request that was answered with tokens; all others are codes
// of package events.
const codeOK = "ok"

// ServiceVersion is the version of the requests and replies in $SRV discovery.
const ServiceVersion = "1.2.0"

// flushTimeout bounds the wait until the NATS server has read what was sent to it.
const flushTimeout = 5 * time.Second

// ServiceName is the name of the service in $SRV discovery.
func ServiceName(subjects events.Subjects) string {
	if subjects.Prefix != "" {
		return subjects.Prefix + "-latchkey-tokens"
	}
	return "latchkey-tokens"
}

// Start registers the service with NATS.
func (t *Service) Start(nc *nats.Conn) error {
	unwatch, err := t.watchInboxes(nc)
	if err != nil {
		return err
	}
	unfollow := t.grants.watchChanges(nc, t.opts.Subjects)
	t.stopWatching = func() { unfollow(); unwatch() }
	name := ServiceName(t.opts.Subjects)
	service := discoverable(nc, name, "Current access tokens of a user, in the shape of the Link SDK's accessTokens", t.opts.Metadata, t.opts.Stats, time.Now, t.inboxes.Contains)
	t.conn, t.service = nc, service
	err = service.add("get", t.opts.Subjects.TokenGetAll(), t.receive, map[string]string{"request": "events.TokenRequest", "reply": "events.TokenReply"}, t.observe)
	if err == nil && t.opts.Keys != nil {
		err = service.add("keys", t.opts.Subjects.TokenKeys(), t.receiveKeys, map[string]string{"reply": "events.TokenKeys"}, nil)
	}
	if err == nil {
		err = service.add("mfa", t.opts.Subjects.TokenMFAAll(), t.receiveMFA, map[string]string{"request": "events.MFARequest", "reply": "events.MFAReply"}, func(code string, _ time.Duration) { t.codes.WithLabelValues(code).Inc() })
	}
	if err == nil {
		err = service.announce()
	}
	if err == nil {
		err = nc.FlushTimeout(flushTimeout) // then the server routes requests here
	}
	if err != nil {
		t.stopWatching()
		return fmt.Errorf("registering the token service: %w", err)
	}
	return nil
}

// Stop accepts no more requests and waits for those being answered. Call it once.
func (t *Service) Stop() error {
	if t.service == nil {
		return nil
	}
	err := t.service.stop()
	if err == nil {
		t.waitForReceived()
	}
	t.atWork.Wait()
	t.end()
	t.stopWatching()
	return err
}

// waitForReceived waits until all requests that NATS sent before it processed the
// unsubscription are being answered. Without a connection there are none.
func (t *Service) waitForReceived() {
	begun := make(chan struct{})
	err := t.conn.FlushTimeout(flushTimeout)
	if err == nil {
		err = t.conn.Barrier(func() { close(begun) })
	}
	if err != nil {
		t.opts.Log.Warn("ending the token service without NATS", zap.Error(err))
		return
	}
	<-begun
}
