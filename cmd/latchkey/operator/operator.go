// Package operator serves the page on which operators watch an installation, find a
// user's grants, and act on single grants and dead letters. Each worker serves its own,
// from its memory and from what all workers share.
package operator

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/streams"
)

//go:embed assets
var embedded embed.FS

// Options is what a Page shows and acts with.
type Options struct {
	Store     *store.Store
	Refresher *refresher.Refresher
	Streams   *streams.Topology
	Letters   *handlers.DeadLetters
	NATS      *nats.Conn
	JetStream jetstream.JetStream
	// Refused returns the subject of an asynchronous error of NATS that says that something
	// is not permitted, and the words for it; an empty one: it says something else.
	Refused  func(err error) (subject, why string)
	Subjects events.Subjects
	// Metrics are this worker's, of its refreshes. To gather them waits for nothing.
	Metrics prometheus.Gatherer
	// Service is the name of the workers' NATS service.
	Service  string
	WorkerID string
	// Ready checks whether this worker can work. It returns within seconds.
	Ready func(context.Context) Readiness
	// Token is the token that the page asks for; empty: none.
	Token secret.Text
	Now   func() time.Time
	Log   *zap.Logger
	// Audit, if set, is called before every action and after it. user and grant are
	// empty if they are not known.
	Audit func(action, user, grant, detail string)
}

// Page is the operator's page. It is safe for concurrent use.
type Page struct {
	Options
	attempts *attempts
	refusals refusals

	stock    cache[Stock]
	schedule cache[Schedule]
	overdue  cache[Overdue]
	failing  cache[Failing]
	queues   cache[[]streams.Backlog]
	letters  cache[uint64]
	verdicts cache[[]view.Verdicts]
	workers  cache[[]Worker]
	state    cache[Readiness]
	// ready is the last state that was read.
	ready atomic.Pointer[Readiness]

	ctx        context.Context
	cancel     context.CancelFunc
	background sync.WaitGroup
}

// New returns a page, to be closed.
func New(o Options) (*Page, error) {
	err := options.Require("the operator's page", o, "Store", "Refresher", "Streams", "Letters", "NATS", "JetStream", "Refused", "Metrics", "Service", "WorkerID",
		"Ready", "Now", "Log")
	if err != nil {
		return nil, err
	}
	p := &Page{Options: o, attempts: newAttempts(o.Now)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.refusals.listen(o.NATS, o.Refused)
	p.stock = cache[Stock]{every: 10 * time.Second, counts: true, load: p.countStock, what: "the number of grants"}
	p.schedule = cache[Schedule]{every: 15 * time.Second, counts: true, load: p.countDue, what: "what is due"}
	p.overdue = cache[Overdue]{every: 5 * time.Second, counts: true, load: p.findOverdue, what: "what is overdue"}
	p.failing = cache[Failing]{every: 10 * time.Second, counts: true, load: p.countFailing, what: "what fails"}
	p.queues = cache[[]streams.Backlog]{every: 3 * time.Second, load: o.Streams.Backlogs, what: "the queues"}
	p.letters = cache[uint64]{every: 3 * time.Second, load: o.Letters.Count, what: "the number of dead letters"}
	p.verdicts = cache[[]view.Verdicts]{every: 3 * time.Second, load: p.findVerdicts, what: "where refresh tokens are refused"}
	p.workers = cache[[]Worker]{every: 5 * time.Second, load: p.findWorkers, what: "the list of workers", waits: true}
	p.state = cache[Readiness]{every: time.Second, load: p.readiness, what: "the state of this worker", waits: true}
	return p, nil
}

// Close ends the loads that are under way.
func (p *Page) Close() {
	p.cancel()
	p.background.Wait()
}

// Work returns this worker's [Work].
func (p *Page) Work() any {
	w, _, _ := count(p.Metrics)
	return w
}

// Handler serves the page. loopback: only this machine can reach it.
func (p *Page) Handler(loopback bool) http.Handler {
	assets, err := fs.Sub(embedded, "assets")
	if err != nil {
		panic(err) // the folder is embedded
	}
	mux := http.NewServeMux()
	for _, view := range []string{"{$}", "grants", "brokers", "dead-letters", "workers"} {
		mux.HandleFunc("GET /"+view, page("./"))
	}
	mux.HandleFunc("GET /grants/{id}", page("../"))
	mux.Handle("GET /assets/{name}", http.StripPrefix("/assets/", http.FileServerFS(assets))) // and no folder, which would be listed
	for pattern, serve := range map[string]func(*http.Request) (any, error){
		"GET /api/overview":                        p.overview,
		"GET /api/grants":                          p.listGrants,
		"GET /api/grants/{id}":                     p.grant,
		"GET /api/grants/{id}/history":             p.grantHistory,
		"POST /api/grants/{id}/refresh":            p.refreshNow,
		"POST /api/grants/{id}/revive":             p.revive,
		"POST /api/verdicts":                       p.decide,
		"GET /api/dead-letters":                    p.listLetters,
		"GET /api/dead-letters/reasons":            p.tallyLetters,
		"POST /api/dead-letters/replay":            p.onLetters(p.replaying()),
		"POST /api/dead-letters/drop":              p.onLetters(p.dropping()),
		"POST /api/dead-letters/{sequence}/replay": p.onLetter(p.replaying()),
		"POST /api/dead-letters/{sequence}/drop":   p.onLetter(p.dropping()),
	} {
		mux.Handle(pattern, p.answer(serve))
	}
	return p.Guard(mux, loopback)
}

// page serves the page at an address from which root leads to the first one: it may lie below a folder
// of a proxy. Which view it shows follows from the address.
func page(root string) http.HandlerFunc {
	index, err := embedded.ReadFile("assets/index.html")
	if err != nil {
		panic(err) // the file is embedded
	}
	index = bytes.ReplaceAll(index, []byte(`="./`), []byte(`="`+root))
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(index) // the browser is gone
	}
}

// refusal is an error to show on the page.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, text string) error { return &refusal{status, text} }

// answer writes what serve returns as JSON.
func (p *Page) answer(serve func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusOK
		value, err := serve(r)
		var refused *refusal
		switch {
		case errors.As(err, &refused):
			status, value = refused.status, map[string]string{"error": refused.text}
		case err != nil && r.Context().Err() != nil: // the browser went on, and nobody reads the answer
			return
		case err != nil:
			p.Log.Warn("the operator's page could not do what it was asked for", zap.String("path", r.Pattern), zap.Error(err))
			status, value = http.StatusServiceUnavailable, map[string]string{"error": "this can't be done now; see the worker's log"}
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(value) // the browser is gone
	})
}

// maxBody bounds the body of a request, in bytes.
const maxBody = 4 << 10

// body decodes the body of a request.
func body(r *http.Request, into any) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "the body must be a short JSON object")
	}
	return nil
}
