package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/latchkey/latchkey/cmd/latchkey/operator"
)

// readiness checks whether this worker can work.
func (w *worker) readiness(ctx context.Context) operator.Readiness {
	check := func(name string, needed bool, problem string) operator.Check {
		return operator.Check{Name: name, OK: problem == "", Needed: needed, Detail: problem}
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	var nats, mongodb, receiving string
	if !w.nc.IsConnected() {
		nats = strings.ToLower(w.nc.Status().String())
	}
	switch err := w.db.Ping(ctx); {
	case err != nil && (ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded)):
		mongodb = fmt.Sprintf("no answer within %s", pingTimeout)
	case err != nil:
		mongodb = err.Error()
	}
	switch {
	case w.stopping.Load():
		receiving = "the worker is stopping"
	case nats != "":
		receiving = "nothing comes without NATS"
	default:
		receiving = w.subscriber.Problem()
	}
	r := operator.Readiness{Ready: true, Checks: []operator.Check{
		check("NATS", true, nats), check("MongoDB", true, mongodb), check("receiving", true, receiving),
		// Data keys in memory last for a while; taking the worker out would not help.
		check("KMS", false, w.kms.problem()),
	}}
	for _, c := range r.Checks {
		r.Ready = r.Ready && (c.OK || !c.Needed)
	}
	return r
}

// healthz says whether the process should keep running, or why this worker can never work
// again. A server that is away or refuses credentials may come back, and is no reason.
func (w *worker) healthz(out http.ResponseWriter, _ *http.Request) {
	switch reason := w.ended.Load(); {
	case reason != nil:
		http.Error(out, *reason, http.StatusServiceUnavailable)
	case w.nc.IsClosed() && !w.stopping.Load():
		http.Error(out, "the connection to NATS is closed for good", http.StatusServiceUnavailable)
	default:
		fmt.Fprintln(out, "ok")
	}
}

// kmsState remembers whether the last call to KMS failed. There are no calls just to
// find out, since calls cost money.
type kmsState struct {
	mu     sync.Mutex
	failed time.Time
}

func (k *kmsState) record(at time.Time, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err == nil:
		k.failed = time.Time{}
	case k.failed.IsZero():
		k.failed = at
	}
}

func (k *kmsState) problem() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failed.IsZero() {
		return ""
	}
	return "calls fail since " + k.failed.UTC().Format(time.RFC3339)
}

// readyTimeout bounds a check of readiness, pingTimeout the question to MongoDB in it.
const (
	readyTimeout = 3 * time.Second
	pingTimeout  = 2 * time.Second
)

// readyz answers with a line of text, or with JSON if the request accepts it.
func (w *worker) readyz(out http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	state := w.readiness(ctx)
	status := http.StatusOK
	if !state.Ready {
		status = http.StatusServiceUnavailable
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		out.Header().Set("Content-Type", "application/json; charset=utf-8")
		out.WriteHeader(status)
		_ = json.NewEncoder(out).Encode(state) // the client is gone
		return
	}
	for _, c := range state.Checks {
		if c.Needed && !c.OK {
			http.Error(out, c.Name+": "+c.Detail, status)
			return
		}
	}
	fmt.Fprintln(out, "ok")
}
