package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
)

// admin is the HTTP listener for metrics and health.
type admin struct{ server *http.Server }

// startAdmin listens as configured; an empty address means not at all.
func startAdmin(cfg config.Admin, reg *prometheus.Registry, health func(context.Context) error, log *zap.Logger) (*admin, error) {
	if cfg.Listen == "" {
		return &admin{}, nil
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening on admin.listen: %w", err)
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "latchkey", Name: "ready", Help: "1 while NATS and MongoDB can be reached, as /readyz says; else 0.",
	}, func() float64 {
		if ready(context.Background(), health) != nil {
			return 0
		}
		return 1
	}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := ready(r.Context(), health); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the admin listener ended", zap.Error(err))
		}
	}()
	log.Info("admin listener", zap.String("address", listener.Addr().String()))
	return &admin{server}, nil
}

// ready asks for the worker's health, but not for long.
func ready(ctx context.Context, health func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return health(ctx)
}

func (a *admin) stop() error {
	if a.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return a.server.Shutdown(ctx)
}
