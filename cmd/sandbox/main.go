package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/cmd/sandbox/traceview"
	"github.com/latchkey/latchkey/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(stderr)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(stderr, "sandbox:", err)
		return 1
	}
	return 0
}

func newRoot(stderr io.Writer) *cobra.Command {
	var o stack.Options
	var page pageOptions
	root := &cobra.Command{
		Use:   "sandbox",
		Short: "Run Latchkey with everything it needs in one process",
		Long: `Starts embedded NATS and MongoDB, a simulated KMS and a simulated Mesh, and a
worker, and runs until ctrl-C. The data stays in the folder: started again, the
sandbox goes on where it ended.

Variables that begin with LATCHKEY_ or OTEL_ configure the worker, as they do outside.`,
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), o, page, cmd.OutOrStdout()) },
	}
	root.Flags().StringVar(&o.Dir, "dir", defaultDir, "folder for all data")
	root.Flags().IntVar(&o.NATSPort, "nats-port", 4222, "port of NATS")
	root.Flags().IntVar(&o.MongoDBPort, "mongodb-port", 27017, "port of MongoDB")
	root.Flags().IntVar(&o.KMSPort, "kms-port", 4599, "port of the simulated KMS")
	root.Flags().IntVar(&o.MeshPort, "mesh-port", 4600, "port of the simulated Mesh")
	root.Flags().StringVar(&page.scriptDir, "page", pageDir(), "folder of the page's script, which make page builds")
	root.Flags().IntVar(&page.pagePort, "page-port", defaultPagePort, "port of the page")
	root.Flags().IntVar(&page.linkPort, "link-port", 4602, "port of the simulated Link")
	root.Flags().IntVar(&page.tracesPort, "traces-port", traceview.Port, "port of the collector for traces and of the page that shows them")
	root.AddCommand(&cobra.Command{
		Use:   "demo",
		Short: "Show the life of a few grants in half a minute, then check it against the ledger",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return demo(cmd.Context(), cmd.OutOrStdout()) },
	})
	root.AddCommand(envCommand(), chaosCommand(), benchCommand(), workerCommand(stderr))
	return root
}

func serve(ctx context.Context, o stack.Options, page pageOptions, stdout io.Writer) error {
	s, err := stack.Start(o)
	if err != nil {
		return err
	}
	defer s.Stop()
	var told strings.Builder // behind the first line
	given := workerVariables()
	traces, err := startTraces(s, page.tracesPort, given, &told)
	if err != nil {
		return err
	}
	cfg, err := s.Config(slices.Concat(traces, given)...)
	if err != nil {
		return err
	}
	return withWorker(ctx, s, cfg, filepath.Join(o.Dir, "worker.log"), func(ctx context.Context) error {
		file, err := writeEnv(o.Dir, s)
		if err != nil {
			return err
		}
		defer func() { _ = os.Remove(file) }()
		fmt.Fprintln(stdout, envLine(os.Args[0], o.Dir))
		fmt.Fprintln(stdout, "has every latchkey command in that shell use this sandbox. Its parts, for your own tools:")
		fmt.Fprintf(stdout, "  NATS      %s      nats --server %s sub '>'\n", cfg.NATS.URL, cfg.NATS.URL)
		fmt.Fprintf(stdout, "  MongoDB   %s      mongosh '%s'\n", cfg.MongoDB.URI.Reveal(), cfg.MongoDB.URI.Reveal()+"&appName=mongosh")
		fmt.Fprintf(stdout, "  KMS       %s\n", cfg.KMS.Endpoint)
		fmt.Fprintf(stdout, "  Mesh      %s      ledger: GET %s/sim/ledger with X-Client-Id %s, X-Client-Secret %s\n", cfg.Mesh.URL, cfg.Mesh.URL, stack.ClientID, stack.ClientSecret)
		if cfg.Admin.Listen != "" {
			fmt.Fprintf(stdout, "  worker    http://%s/      the operator's page; also /metrics and /readyz\n", cfg.Admin.Listen)
		}
		fmt.Fprint(stdout, told.String())
		stopPage, err := startPage(s, cfg, page, stdout)
		if err != nil {
			return err
		}
		defer stopPage()
		fmt.Fprintf(stdout, "  log       %s\n", filepath.Join(o.Dir, "worker.log"))
		fmt.Fprintln(stdout, "Stop it with ctrl-C.")
		<-ctx.Done()
		fmt.Fprintln(stdout, "Stopping.")
		return nil
	})
}

func workerVariables() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return !strings.HasPrefix(v, "LATCHKEY_") && !strings.HasPrefix(v, "OTEL_") })
}

// withWorker runs do while a worker runs, and stops the worker cleanly.
func withWorker(ctx context.Context, s *stack.Stack, cfg config.Config, logPath string, do func(context.Context) error) error {
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the worker's log: %w", err)
	}
	defer func() { _ = logFile.Close() }()
	log, err := worker.NewLogger(cfg.Log, logFile)
	if err != nil {
		return err
	}
	workerCtx, stopWorker := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorker()
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- worker.Run(workerCtx, cfg, worker.Options{Log: log, Metrics: prometheus.NewRegistry(), Ready: func() { close(ready) }})
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	select {
	case <-ready:
	case err := <-done:
		return fmt.Errorf("starting the worker: %w", err)
	}
	ended := make(chan error, 1)
	go func() { // do must not outlive the worker
		ended <- <-done
		cancel()
	}()
	err = errors.Join(s.Ready(ctx), do(ctx))
	stopWorker()
	return errors.Join(err, <-ended)
}
