package worker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/operator"
	"github.com/latchkey/latchkey/handlers/tokens"
	"github.com/latchkey/latchkey/store/audit"
)

// startAdmin serves metrics, health and the operator's page at admin.listen until stop is
// called. It does nothing if admin.listen is empty.
func (w *worker) startAdmin() (stop func() error, err error) {
	cfg := w.cfg.Admin
	if cfg.Listen == "" {
		return func() error { return nil }, nil
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening on admin.listen (LATCHKEY_ADMIN_LISTEN sets another address): %w", err)
	}
	address := zap.Stringer("address", listener.Addr())
	tcp, ok := listener.Addr().(*net.TCPAddr)
	loopback := ok && tcp.IP.IsLoopback()
	scheme := "http"
	if cfg.CertFile != "" {
		certificate, err := newPair(cfg.CertFile, cfg.KeyFile, w.log)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("reading admin.cert_file and admin.key_file: %w", err), listener.Close())
		}
		scheme = "https"
		listener = tls.NewListener(listener, &tls.Config{GetCertificate: certificate.current, NextProtos: []string{"http/1.1"}})
	}
	promauto.With(w.reg).NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "latchkey", Name: "ready", Help: "1 while the worker can work, as /readyz says; else 0.",
	}, func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
		defer cancel()
		if !w.readiness(ctx).Ready {
			return 0
		}
		return 1
	})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(w.reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", w.healthz)
	mux.HandleFunc("GET /readyz", w.readyz)
	switch {
	case loopback:
		mux.Handle("/", w.page.Handler(true))
	case cfg.Token.Empty():
		mux.HandleFunc("/", noPage) // also where a link to a view leads
		w.log.Warn(pageAbsent, address)
	default:
		mux.Handle("/", w.page.Handler(false))
		if scheme == "http" {
			w.log.Warn("admin.token travels in the clear: set admin.cert_file and admin.key_file, or have a proxy in front do TLS", address)
		}
	}
	stopping, end := context.WithCancel(context.Background())
	if cfg.Pprof && !cfg.Token.Empty() {
		mux.Handle("/debug/pprof/", w.page.Guard(profiles(stopping), loopback))
		w.log.Info("profiles are served at /debug/pprof/ of the admin listener", address)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			w.log.Error("the admin listener ended", zap.Error(err))
		}
	}()
	w.log.Info("admin listener", address, zap.String("scheme", scheme))
	if loopback || !cfg.Token.Empty() {
		w.log.Info("the operator's page is at / of the admin listener", address)
	}
	return func() error {
		end()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		return server.Shutdown(ctx)
	}, nil
}

const pageAbsent = "the operator's page is not served: admin.listen is not a loopback address, and admin.token is not set"

// noPage says why the operator's page is not there, and what is.
func noPage(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, pageAbsent+"\n\nSet admin.token to have it here (LATCHKEY_ADMIN_TOKEN, or LATCHKEY_ADMIN_TOKEN_FILE for a file that holds it).\n"+
		"Without a token there are /metrics, /healthz and /readyz.", http.StatusNotFound)
}

// newPage returns the operator's page of this worker.
func (w *worker) newPage() (*operator.Page, error) {
	return operator.New(operator.Options{
		Store: w.db, Refresher: w.refresher, Streams: w.streams, Letters: w.letters, NATS: w.nc, JetStream: w.js, Refused: w.refused,
		Subjects: w.subj, Metrics: w.work, Service: tokens.ServiceName(w.subj), WorkerID: w.cfg.Worker.ID, Ready: w.readiness,
		Token: w.cfg.Admin.Token, Now: w.now, Log: w.log, Audit: w.operated,
	})
}

// refused says what an asynchronous error of NATS does not permit.
func (w *worker) refused(err error) (subject, why string) {
	if denied := permissionError(w.cfg.NATS, err); denied != nil {
		return denied.Subject, denied.Error()
	}
	return "", ""
}

// operated records an action on the operator's page.
func (w *worker) operated(action, user, grant, detail string) {
	record := audit.Record{Action: audit.Operated, Outcome: action + ": " + detail, User: user}
	if grant != "" {
		record.Grants = []audit.Grant{{ID: grant}}
	}
	w.audit.Add(record)
}
