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
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/operator"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/handlers/tokens"
	"github.com/latchkey/latchkey/store/audit"
)

// admin is the HTTP listener for metrics, health and the operator's page.
type admin struct{ server *http.Server }

// startAdmin listens as configured; an empty address means not at all.
func startAdmin(cfg config.Admin, reg *prometheus.Registry, health func() error, readiness func(context.Context) operator.Readiness, page *operator.Page, log *zap.Logger) (*admin, error) {
	if cfg.Listen == "" {
		return &admin{}, nil
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening on admin.listen: %w", err)
	}
	address := zap.Stringer("address", listener.Addr())
	scheme := "http"
	if cfg.CertFile != "" {
		certificate, err := newPair(cfg.CertFile, cfg.KeyFile, log)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("reading admin.cert_file and admin.key_file: %w", err), listener.Close())
		}
		scheme = "https"
		listener = tls.NewListener(listener, &tls.Config{GetCertificate: certificate.current, NextProtos: []string{"http/1.1"}})
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "latchkey", Name: "ready", Help: "1 while the worker can work, as /readyz says; else 0.",
	}, func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
		defer cancel()
		if !readiness(ctx).Ready {
			return 0
		}
		return 1
	}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", healthz(health))
	mux.HandleFunc("GET /readyz", readyz(readiness))
	local := isLoopback(listener.Addr())
	switch {
	case local:
		mux.Handle("/", page.Handler(true))
	case cfg.Token.Empty():
		mux.HandleFunc("GET /{$}", noPage)
		log.Warn(pageAbsent, address)
	default:
		mux.Handle("/", page.Handler(false))
		if scheme == "http" {
			log.Warn("admin.token travels in the clear: set admin.cert_file and admin.key_file, or have a proxy in front do TLS", address)
		}
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the admin listener ended", zap.Error(err))
		}
	}()
	log.Info("admin listener", address, zap.String("scheme", scheme))
	if local || !cfg.Token.Empty() {
		log.Info("the operator's page is at / of the admin listener", address)
	}
	return &admin{server}, nil
}

const pageAbsent = "the operator's page is not served: admin.listen is not a loopback address, and admin.token is not set"

// noPage says why the operator's page is not there, and what is.
func noPage(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, pageAbsent+"\n\nSet admin.token to have it here (LATCHKEY_ADMIN_TOKEN, or LATCHKEY_ADMIN_TOKEN_FILE for a file that holds it).\n"+
		"Without a token there are /metrics, /healthz and /readyz.", http.StatusNotFound)
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

func (a *admin) stop() error {
	if a.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return a.server.Shutdown(ctx)
}

// newPage returns the operator's page of this worker.
func (w *worker) newPage() *operator.Page {
	return operator.New(operator.Options{
		Store: w.db, Refresher: w.refresher, Streams: w.streams, Letters: w.letters, NATS: w.nc, JetStream: w.js,
		Subjects: w.subj, Metrics: w.reg, Service: tokens.ServiceName(w.subj), WorkerID: w.cfg.Worker.ID, Ready: w.readiness,
		Token: w.cfg.Admin.Token, Now: w.now, Log: w.log, Audit: w.operated,
	})
}

// operated records what was done on the operator's page.
func (w *worker) operated(action, user, grant, detail string) {
	record := audit.Record{Action: audit.Operated, Outcome: action + ": " + detail, User: user}
	if grant != "" {
		record.Grants = []audit.Grant{{ID: grant}}
	}
	w.audit.Add(record)
}
