// Package workertest gives tests workers in their own process, and what the doctor says of
// their installation.
package workertest

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/doctor"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/config"
)

// Settings are those of a worker that is quick, and has a prefix and a database of its own.
// More settings take precedence.
func Settings(prefix, database string, more ...string) []string {
	return append([]string{
		"LATCHKEY_ADMIN_LISTEN=",
		"LATCHKEY_NATS_PREFIX=" + prefix,
		"LATCHKEY_MONGODB_DATABASE=" + database,
		"LATCHKEY_LOG_LEVEL=debug",
		"LATCHKEY_WORKER_LOCK_MEMORY=off",
		"LATCHKEY_REFRESH_ACCESS_TOKEN_MIN=1s",
		"LATCHKEY_REFRESH_BACKOFF_MIN=100ms",
		"LATCHKEY_REFRESH_BACKOFF_MAX=1s",
		"LATCHKEY_REFRESH_RATE_LIMITED_MIN=100ms",
		"LATCHKEY_REFRESH_RATE_LIMITED_MAX=1s",
		"LATCHKEY_REFRESH_CREDENTIALS_MIN=200ms",
		"LATCHKEY_REFRESH_CREDENTIALS_MAX=1s",
		"LATCHKEY_MESSAGES_BACKOFF_MIN=100ms",
		"LATCHKEY_MESSAGES_BACKOFF_MAX=1s",
		"LATCHKEY_RECONCILE_INTERVAL=1s",
		"LATCHKEY_RECONCILE_SLACK=1s",
		"LATCHKEY_TOKENS_MIN_TTL=1s",
		"LATCHKEY_TOKENS_REFUSED_PAUSE=1ms",
	}, more...)
}

// Running is a worker in this process.
type Running struct {
	Metrics *prometheus.Registry

	cancel context.CancelFunc
	ended  chan struct{}
	err    error // once it has ended
}

// Run starts a worker and waits until it receives. It runs until Stop, or until ctx ends. It
// sets Metrics and Ready of the options.
func Run(ctx context.Context, cfg config.Config, o worker.Options) (*Running, error) {
	// As in a process of its own, the worker's context has no deadline, which would take the
	// place of the bounds of single calls.
	workerCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, cancel)
	r := &Running{Metrics: prometheus.NewRegistry(), cancel: cancel, ended: make(chan struct{})}
	ready := make(chan struct{})
	o.Metrics, o.Ready = r.Metrics, func() { close(ready) }
	go func() {
		defer close(r.ended)
		r.err = worker.Run(workerCtx, cfg, o)
	}()
	select {
	case <-ready:
		return r, nil
	case <-r.ended:
		cancel()
		return nil, r.err
	}
}

// Ended is closed when the worker has ended.
func (r *Running) Ended() <-chan struct{} { return r.ended }

// Stop stops the worker as SIGTERM does, waits for it and returns why it ended; nil: it
// was stopped.
func (r *Running) Stop() error {
	r.cancel()
	<-r.ended
	return r.err
}

// Findings are a doctor's results by check.
type Findings struct {
	t       testing.TB
	ByCheck map[string]doctor.Result
}

// Examine has the doctor look at an installation. Each result says what to do, unless all is
// well.
func Examine(ctx context.Context, t testing.TB, cfg config.Config, o doctor.Options) Findings {
	t.Helper()
	out := Findings{t, map[string]doctor.Result{}}
	for _, r := range doctor.Run(ctx, cfg, o) {
		require.NotContains(t, out.ByCheck, r.Check)
		require.NotEmpty(t, r.Detail, r.Check)
		require.Equal(t, r.Status == doctor.OK, r.Do == "", "%+v", r)
		out.ByCheck[r.Check] = r
	}
	return out
}

// Is expects a check's outcome, and a text in what is told of it.
func (f Findings) Is(status doctor.Status, check, text string) {
	f.t.Helper()
	r := f.ByCheck[check]
	require.Equal(f.t, status, r.Status, "%+v", r)
	require.Contains(f.t, r.Detail+"\n"+r.Do, text, check)
}

// AllBut expects that all checks are well but for some.
func (f Findings) AllBut(checks ...string) {
	f.t.Helper()
	for name, r := range f.ByCheck {
		if name == "mongodb" && r.Status == doctor.Warning {
			continue // the embedded database is no replica set
		}
		if r.Status != doctor.OK {
			require.Contains(f.t, checks, name, "%+v", r)
		}
	}
}
