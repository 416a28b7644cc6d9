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
	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// exitInterrupted is what shells report of a program that ctrl-C has ended.
const exitInterrupted = 130

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(stderr)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(stderr, "Interrupted.")
		return exitInterrupted
	}
	fmt.Fprintln(stderr, "sandbox:", err)
	return 1
}

// options say where the sandbox keeps its data, where it listens, where the page's script is,
// and which variables its worker has.
type options struct {
	dir, scriptDir string
	ports          ports
	variables      []string
}

func newRoot(stderr io.Writer) *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:   "sandbox",
		Short: "Run Latchkey with everything it needs in one process",
		Long: `Starts embedded NATS and MongoDB, a simulated KMS and a simulated Mesh, and a
worker, and runs until ctrl-C. The data stays in the folder: started again, the
sandbox goes on where it ended.

Variables that begin with LATCHKEY_ or OTEL_ configure the worker, as they do outside.`,
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.variables = workerVariables()
			if err := o.listen(cmd.Flags().Changed("admin-port")); err != nil {
				return err
			}
			return serve(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	root.Flags().StringVar(&o.dir, "dir", defaultDir, "folder for all data")
	root.Flags().StringVar(&o.scriptDir, "page", pageDir(), "folder of the page's script, which make page builds")
	o.ports.addTo(root.Flags())
	root.AddCommand(demoCommand(), connectCommand(), envCommand(), chaosCommand(), benchCommand(), workerCommand(stderr), homemadeCommand(stderr), natsCommand())
	return root
}

// listen has the worker listen on the flag's port. Its variable says otherwise only where the
// flag is not given.
func (o *options) listen(given bool) error {
	const variable = "LATCHKEY_ADMIN_LISTEN="
	if !given && slices.ContainsFunc(o.variables, func(v string) bool { return strings.HasPrefix(v, variable) }) {
		o.ports.admin = 0
		return nil
	}
	address := fmt.Sprintf("127.0.0.1:%d", o.ports.admin)
	if o.ports.admin == 0 {
		free, err := engines.FreeAddress()
		if err != nil {
			return err
		}
		address = free
	}
	o.variables = append(o.variables, variable+address)
	return nil
}

func serve(ctx context.Context, o options, stdout io.Writer) error {
	if err := o.ports.check(); err != nil {
		held, inUse := stack.Hold(o.dir)
		_ = held.Close() // fails where there is none
		if errors.Is(inUse, stack.ErrInUse) {
			return inUse // by a sandbox that has the ports
		}
		return err
	}
	s, err := stack.Start(stack.Options{Dir: o.dir, NATSPort: o.ports.nats, MongoDBPort: o.ports.mongodb, KMSPort: o.ports.kms, MeshPort: o.ports.mesh})
	if err != nil {
		return err
	}
	defer s.Stop()
	var told strings.Builder // behind the first line
	traces, err := startTraces(s, o.ports.traces, o.variables, &told)
	if err != nil {
		return err
	}
	cfg, err := s.Config(slices.Concat(traces, o.variables)...)
	if err != nil {
		return err
	}
	return withWorker(ctx, s, cfg, filepath.Join(o.dir, "worker.log"), func(ctx context.Context) error {
		file, err := writeEnv(o.dir, s, o.variables)
		if err != nil {
			return err
		}
		defer func() { _ = os.Remove(file) }()
		fmt.Fprintln(stdout, envLine(os.Args[0], o.dir))
		fmt.Fprintln(stdout, "has every latchkey command in that shell use this sandbox. Its parts, for your own tools:")
		fmt.Fprintf(stdout, "  NATS      %s      nats --server %s sub '>'\n", cfg.NATS.URL, cfg.NATS.URL)
		fmt.Fprintf(stdout, "  MongoDB   %s      mongosh '%s'\n", cfg.MongoDB.URI.Reveal(), cfg.MongoDB.URI.Reveal()+"&appName=mongosh")
		fmt.Fprintf(stdout, "  KMS       %s\n", cfg.KMS.Endpoint)
		fmt.Fprintf(stdout, "  Mesh      %s      ledger: GET %s/sim/ledger with X-Client-Id %s, X-Client-Secret %s\n", cfg.Mesh.URL, cfg.Mesh.URL, stack.ClientID, stack.ClientSecret)
		if cfg.Admin.Listen != "" {
			fmt.Fprintf(stdout, "  worker    http://%s/      the operator's page; also /metrics and /readyz\n", cfg.Admin.Listen)
		}
		fmt.Fprint(stdout, told.String())
		stopPage, err := startPage(s, cfg, o, stdout)
		if err != nil {
			return err
		}
		defer stopPage()
		fmt.Fprintf(stdout, "  log       %s\n", filepath.Join(o.dir, "worker.log"))
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
