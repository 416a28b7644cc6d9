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

// readiness tells what this worker can do.
func (w *worker) readiness(ctx context.Context) operator.Readiness {
	check := func(name string, needed bool, problem string) operator.Check {
		return operator.Check{Name: name, OK: problem == "", Needed: needed, Detail: problem}
	}
	var nats, mongodb, receiving string
	if !w.nc.IsConnected() {
		nats = w.nc.Status().String()
	}
	if err := w.db.Ping(ctx); err != nil {
		mongodb = err.Error()
	}
	if w.stopping.Load() {
		receiving = "the worker is stopping"
	}
	r := operator.Readiness{Ready: true, Checks: []operator.Check{
		check("NATS", true, nats), check("MongoDB", true, mongodb), check("receiving", true, receiving),
		// Keys in memory serve for a while; to take the worker out helps nobody.
		check("KMS", false, w.kms.problem()),
	}}
	for _, c := range r.Checks {
		r.Ready = r.Ready && (c.OK || !c.Needed)
	}
	return r
}

// health returns why this worker can never work again, or nil. What may come
// back, such as a server that is away or refuses credentials, is no reason.
func (w *worker) health() error {
	if reason := w.ended.Load(); reason != nil {
		return errors.New(*reason)
	}
	if w.nc.IsClosed() && !w.stopping.Load() {
		return errors.New("the connection to NATS is closed for good")
	}
	return nil
}

// healthz says whether to go on with this process makes sense.
func healthz(health func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := health(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

// kmsState remembers how the last call to KMS went. Nobody asks KMS only to
// know: calls cost.
type kmsState struct {
	mu     sync.Mutex
	failed time.Time
}

func (k *kmsState) told(at time.Time, err error) {
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

// readyTimeout bounds how long readiness is looked into.
const readyTimeout = 3 * time.Second

// readyz answers with a line of text, or with JSON where that is asked for.
func readyz(readiness func(context.Context) operator.Readiness) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		state := readiness(ctx)
		status := http.StatusOK
		if !state.Ready {
			status = http.StatusServiceUnavailable
		}
		if strings.Contains(r.Header.Get("Accept"), "application/json") {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(state) // who asked is gone
			return
		}
		for _, c := range state.Checks {
			if c.Needed && !c.OK {
				http.Error(w, c.Name+": "+c.Detail, status)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	}
}
