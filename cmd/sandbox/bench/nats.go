package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
)

// NATSCommand is the command of this program that runs a NATS server, with the arguments of RunNATS as flags.
const NATSCommand = "nats"

// RunNATS runs a NATS server at an address on loopback until the process is terminated, and serves the metrics of this
// process at another once it is ready. It ignores ctrl-C, which a terminal sends to the bench and to this process: the
// bench needs the server to remove what it has made.
func RunNATS(dir, listen, admin string) error {
	ctx, end := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer end()
	signal.Ignore(os.Interrupt)
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("reading the address for clients: %w", err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("reading the address for clients: %w", err)
	}
	// It encrypts what it stores, as the servers of all other measures do.
	server, err := engines.StartNATS(engines.NATSOptions{Dir: dir, Port: number, Key: "key of the bench", LogFile: filepath.Join(dir, "nats.log")})
	if err != nil {
		return err
	}
	defer server.Stop()
	metrics := &http.Server{Addr: admin, Handler: promhttp.HandlerFor(processMetrics(), promhttp.HandlerOpts{}), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = metrics.Close() })
	defer stop()
	if err := metrics.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving metrics: %w", err)
	}
	return nil
}

func processMetrics() *prometheus.Registry {
	all := prometheus.NewRegistry()
	all.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return all
}

// startNATS starts a NATS server in a process of its own. It must be stopped, even when ctx has ended.
func (r *run) startNATS(ctx context.Context, dir string) (p *process, url string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", fmt.Errorf("making a folder: %w", err)
	}
	listen, err := engines.FreeAddress()
	if err != nil {
		return nil, "", err
	}
	admin, err := engines.FreeAddress()
	if err != nil {
		return nil, "", err
	}
	p, err = startProcess(context.WithoutCancel(ctx), r.Exe, filepath.Join(dir, "process.log"), os.Environ(), func() bool {
		if ctx.Err() != nil {
			return true // nobody waits for it any more
		}
		res, err := http.Get("http://" + admin + "/metrics")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	}, NATSCommand, "--dir", dir, "--listen", listen, "--admin", admin)
	if err != nil {
		return nil, "", err
	}
	if ctx.Err() != nil {
		return nil, "", errors.Join(ctx.Err(), p.stop())
	}
	p.admin = admin
	return p, "nats://" + listen, nil
}
