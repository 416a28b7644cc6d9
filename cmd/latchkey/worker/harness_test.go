package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/latchkey/worker/workertest"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
)

// patience bounds every wait. It is no expectation of speed: a wait ends as
// soon as what it waits for is there.
const patience = 60 * time.Second

// harness is an installation under test, as one test sees it.
type harness struct {
	t *testing.T
	*installation
}

// in returns the harness for a subtest, whose failures it then reports.
func (h *harness) in(t *testing.T) *harness { return &harness{t, h.installation} }

// installation is engines, simulators and workers.
type installation struct {
	ctx      context.Context
	dir      string
	stack    *stack.Stack
	subjects events.Subjects
	database string
	nc       *nats.Conn
	js       jetstream.JetStream
	logs     *enginestest.Text
	// requestTimeout bounds a worker's requests to JetStream; 0: as usual.
	requestTimeout time.Duration

	mu     sync.Mutex
	seen   []seenEvent
	ids    map[string]bool
	more   chan struct{}
	client *mongo.Client
}

// seenEvent is a lifecycle event as a subscriber gets it.
type seenEvent struct {
	events.LifecycleEvent
	Subject string
	Body    []byte
}

// start starts the engines and subscribes to all lifecycle events. Outside
// servers are used where the environment names them.
func start(t *testing.T, institutions map[string]meshsim.Institution) *harness {
	t.Helper()
	return startWith(t, stack.Options{Institutions: institutions})
}

func startWith(t *testing.T, o stack.Options) *harness {
	t.Helper()
	return startAt(t, o, os.Getenv(enginestest.NATSVariable), os.Getenv(enginestest.MongoDBVariable))
}

// startAt is startWith for outside servers; empty: none.
func startAt(t *testing.T, o stack.Options, natsURL, mongodbURI string) *harness {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	h := &harness{t, &installation{ctx: ctx, dir: t.TempDir(), logs: &enginestest.Text{}, more: make(chan struct{}), ids: map[string]bool{}, database: enginestest.Name(t)}}
	var err error
	if natsURL != "" {
		h.subjects.Prefix = strings.ReplaceAll(h.database, "_", "-")
	}
	o.Dir, o.NATSURL, o.MongoDBURI = h.dir, natsURL, mongodbURI
	h.stack, err = stack.Start(o)
	require.NoError(t, err)
	t.Cleanup(h.stack.Stop)
	t.Cleanup(func() {
		if h.client != nil {
			// The server may be stopped already.
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_ = h.client.Disconnect(ctx)
		}
	})
	cfg, err := h.stack.Config()
	require.NoError(t, err)
	h.nc, err = nats.Connect(cfg.NATS.URL, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(h.nc.Close)
	h.js, err = jetstream.New(h.nc)
	require.NoError(t, err)
	for _, kind := range events.LifecycleKinds {
		_, err = h.nc.Subscribe(h.subjects.LifecycleAll(kind), h.observe)
		require.NoError(t, err)
	}
	require.NoError(t, h.nc.Flush())
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(h.logs.String())
		}
	})
	return h
}

func (h *harness) observe(m *nats.Msg) {
	e, err := events.DecodeLifecycle(m.Data)
	if err != nil {
		h.t.Errorf("undecodable event on %s: %v", m.Subject, err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ids[e.ID] {
		return // delivered again
	}
	h.ids[e.ID] = true
	h.seen = append(h.seen, seenEvent{e, m.Subject, m.Data})
	close(h.more)
	h.more = make(chan struct{})
}

// eventsOf returns what was seen of a user so far, by kind ("" for all).
func (h *harness) eventsOf(kind, user string) []events.LifecycleEvent {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []events.LifecycleEvent
	for _, e := range h.seen {
		if (kind == "" || e.Kind == kind) && e.Data.UserID == user {
			out = append(out, e.LifecycleEvent)
		}
	}
	return out
}

// event waits for the first event of a kind about a user.
func (h *harness) event(kind, user string) events.LifecycleEvent { return h.nth(kind, user, 1) }

// nth waits for the n-th event of a kind about a user.
func (h *harness) nth(kind, user string, n int) events.LifecycleEvent {
	h.t.Helper()
	deadline := time.After(patience)
	for {
		h.mu.Lock()
		more := h.more
		h.mu.Unlock()
		if got := h.eventsOf(kind, user); len(got) >= n {
			return got[n-1]
		}
		select {
		case <-more:
		case <-deadline:
			h.t.Fatalf("no %s number %d for %s; seen: %+v", kind, n, user, h.eventsOf("", user))
		}
	}
}

// running is a worker that a test started.
type running struct {
	h *harness
	*workertest.Running
	ended bool // by itself
}

// worker starts a worker with quick defaults for tests and more settings, and
// waits until it receives.
func (h *harness) worker(more ...string) *running {
	h.t.Helper()
	r, err := h.tryWorker(more...)
	require.NoError(h.t, err)
	return r
}

func (h *harness) settings(more ...string) []string {
	return workertest.Settings(h.subjects.Prefix, h.database, more...)
}

func (h *harness) tryWorker(more ...string) (*running, error) {
	cfg, err := h.stack.Config(h.settings(more...)...)
	if err != nil {
		return nil, err
	}
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), h.logs, zap.DebugLevel))
	started, err := workertest.Run(h.ctx, cfg, worker.Options{Log: log, RequestTimeout: h.requestTimeout})
	if err != nil {
		return nil, err
	}
	r := &running{h: h, Running: started}
	h.t.Cleanup(r.stop)
	return r, h.stack.Ready(h.ctx)
}

// stop stops the worker as SIGTERM does and waits for it.
func (r *running) stop() {
	r.h.t.Helper()
	if err := r.Stop(); err != nil && !r.ended {
		r.h.t.Errorf("the worker did not stop cleanly: %v", err)
	}
}

// ends waits until the worker ends by itself, and returns why.
func (r *running) ends() error {
	r.h.t.Helper()
	select {
	case <-r.Ended():
	case <-time.After(patience):
		r.h.t.Fatal("the worker goes on")
	}
	r.ended = true
	return r.Stop()
}

// metric returns the sum of a metric's values over all labels.
func (r *running) metric(name string) float64 {
	families, err := r.Metrics.Gather()
	require.NoError(r.h.t, err)
	sum := 0.0
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// counter returns the sum of a counter's values where a label has a value.
func (r *running) counter(name, label, value string) float64 {
	families, err := r.Metrics.Gather()
	require.NoError(r.h.t, err)
	sum := 0.0
	for _, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if f.GetName() == name && l.GetName() == label && l.GetValue() == value {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}

// connect has the simulator issue tokens and publishes them as a company's
// backend would.
func (h *harness) connect(user string, spec meshsim.ConnectSpec) meshsim.Connection {
	h.t.Helper()
	c, err := h.stack.Mesh.Connect(spec)
	require.NoError(h.t, err)
	h.publishConnected(user, c, time.Time{})
	return c
}

func (h *harness) publishConnected(user string, c meshsim.Connection, at time.Time) {
	h.t.Helper()
	when := ""
	if !at.IsZero() {
		when = fmt.Sprintf(`,"connectedAt":%q`, at.Format(time.RFC3339Nano))
	}
	id, err := json.Marshal(user)
	require.NoError(h.t, err)
	h.publish(h.subjects.Connected(), fmt.Sprintf(`{"userId":%s,"payload":%s%s}`, id, c.Payload.Reveal(), when))
}

func (h *harness) disconnect(user, broker, account string) {
	h.t.Helper()
	body, err := json.Marshal(events.Disconnected{UserID: user, BrokerType: broker, AccountID: account, Everything: broker+account == ""})
	require.NoError(h.t, err)
	h.publish(h.subjects.Disconnected(), string(body))
}

func (h *harness) publish(subject, body string) {
	h.t.Helper()
	_, err := h.js.Publish(h.ctx, subject, []byte(body))
	require.NoError(h.t, err)
}

// ask sends a token request and returns the reply or the error headers.
func (h *harness) ask(r events.TokenRequest) (events.TokenReply, string, []byte) {
	h.t.Helper()
	body, err := json.Marshal(r)
	require.NoError(h.t, err)
	msg, err := h.nc.Request(h.subjects.TokenGet(r.UserID), body, patience)
	require.NoError(h.t, err)
	if code := msg.Header.Get("Nats-Service-Error"); code != "" {
		require.Equal(h.t, events.CodeNumber[code], msg.Header.Get("Nats-Service-Error-Code"))
		return events.TokenReply{}, code, msg.Data
	}
	reply, err := events.DecodeTokenReply(msg.Data)
	require.NoError(h.t, err)
	return reply, "", msg.Data
}

// get asks for tokens and expects to get some.
func (h *harness) get(r events.TokenRequest) events.TokenReply {
	h.t.Helper()
	reply, code, body := h.ask(r)
	require.Empty(h.t, code, string(body))
	return reply
}

// refusing has a request report the tokens of all grants that it asks for, as they
// now are, as refused: they are refreshed for it.
func (h *harness) refusing(r events.TokenRequest) events.TokenRequest {
	h.t.Helper()
	for _, g := range h.grants(r.UserID) {
		if r.AccountID == "" || g.Account(r.AccountID) != nil {
			r.Refused = append(r.Refused, events.RefusedToken{GrantID: g.ID, Version: g.Version})
		}
	}
	return r
}

// given asks until tokens are given: "busy" means to ask again.
func (h *harness) given(r events.TokenRequest) events.TokenReply {
	h.t.Helper()
	var reply events.TokenReply
	h.eventually(func() bool {
		var code string
		var body []byte
		reply, code, body = h.ask(r)
		require.Contains(h.t, []string{"", events.CodeBusy}, code, string(body))
		return code == ""
	}, "no token is given")
	return reply
}

// eventually waits until a condition holds.
func (h *harness) eventually(condition func() bool, what string) {
	h.t.Helper()
	require.Eventually(h.t, condition, patience, 20*time.Millisecond, what)
}
