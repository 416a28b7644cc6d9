package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/memory"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/bench"
	"github.com/latchkey/latchkey/cmd/sandbox/bench/homemade"
	"github.com/latchkey/latchkey/cmd/sandbox/chaos"
	"github.com/latchkey/latchkey/config"
)

func chaosCommand() *cobra.Command {
	var o chaos.Options
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Put worker processes through failures and let the ledger judge",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			exe, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding this program: %w", err)
			}
			o.Out = cmd.OutOrStdout()
			return chaos.Run(cmd.Context(), exe, o)
		},
	}
	flags := cmd.Flags()
	flags.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano()), "what happens when")
	flags.DurationVar(&o.Duration, "duration", 0, "how long scenes are played; 0: each once")
	flags.IntVar(&o.Grants, "grants", 60, "number of grants")
	flags.IntVar(&o.Workers, "workers", 2, "number of worker processes")
	flags.DurationVar(&o.Lifetime, "lifetime", chaos.DefaultLifetime, "lifetime of an access token; thousands of grants need minutes on a small machine")
	flags.IntVar(&o.Patience, "patience", 1, "multiplies the times within which workers must have announced, answered or made good, for a busy machine")
	flags.BoolVar(&o.Postgres, "postgres", false, "keep the database's data in an installed PostgreSQL: for thousands of grants")
	flags.BoolVar(&o.Cluster, "cluster", false, "three NATS servers with replicated streams")
	flags.StringSliceVar(&o.Only, "only", nil, "names of the scenes to play (default: all)")
	flags.BoolVar(&o.Keep, "keep", false, "leave data and logs in place")
	return cmd
}

// workerCommand runs the worker alone in this process, with a clock that may be wrong.
func workerCommand(stderr io.Writer) *cobra.Command {
	var offset time.Duration
	var crashes, stops bool
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Run a worker whose clock may be wrong, configured by the environment",
		Args:  cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load("", os.Environ())
			if err != nil {
				return err
			}
			log, err := worker.NewLogger(cfg.Log, stderr)
			if err != nil {
				return err
			}
			if _, err := memory.Guard(memory.Mode(cfg.Worker.LockMemory)); err != nil {
				return err
			}
			if _, err := memory.TuneHeap(); err != nil {
				log.Warn("memory has no limit but the machine's", zap.Error(err))
			}
			now := func() time.Time { return time.Now().Add(offset) }
			if crashes {
				now = crashing(now)
			}
			if stops {
				now = stopping(now)
			}
			reg := prometheus.NewRegistry()
			reg.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
			return worker.Run(cmd.Context(), cfg, worker.Options{Log: log, Metrics: reg, Now: now})
		},
	}
	cmd.Flags().DurationVar(&offset, "clock-offset", 0, "how far the worker's clock is ahead")
	cmd.Flags().BoolVar(&crashes, "crash-on-signal", false, "panic on SIGUSR1 in each handler that reads the time, on SIGUSR2 in a goroutine of its own")
	cmd.Flags().BoolVar(&stops, "stop-before-call", false, "stop the process once, as SIGSTOP does, between the lease of a refresh and its call")
	return cmd
}

// natsCommand runs a NATS server alone in this process, for bench.
func natsCommand() *cobra.Command {
	var dir, listen, admin string
	cmd := &cobra.Command{
		Use: bench.NATSCommand, Short: "Run the NATS server whose CPU time bench measures",
		Args: cobra.NoArgs, Hidden: true,
		RunE: func(*cobra.Command, []string) error { return bench.RunNATS(dir, listen, admin) },
	}
	cmd.Flags().StringVar(&dir, "dir", "", "folder of what it stores")
	cmd.Flags().StringVar(&listen, "listen", "", "address for clients, on loopback")
	cmd.Flags().StringVar(&admin, "admin", "", "address of its metrics")
	return cmd
}

// homemadeCommand runs the home-made service, for bench.
func homemadeCommand(stderr io.Writer) *cobra.Command {
	o := bench.HomemadeOptions()
	o.Failed = func(err error) { fmt.Fprintln(stderr, err) }
	cmd := &cobra.Command{
		Use: bench.HomemadeCommand, Short: "Run the home-made service that bench compares workers to",
		Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := memory.TuneHeap(); err != nil { // as the worker beside it does
				fmt.Fprintln(stderr, err)
			}
			s, err := homemade.Open(cmd.Context(), o)
			if err != nil {
				return err
			}
			defer s.Close()
			return s.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&o.PostgresURL, "postgres", "", "URL of PostgreSQL")
	cmd.Flags().StringVar(&o.NATSURL, "nats", "", "URL of NATS")
	cmd.Flags().StringVar(&o.MeshURL, "mesh", "", "URL of Mesh")
	cmd.Flags().DurationVar(&o.Every, "every", time.Minute, "how often to look for what is due")
	return cmd
}
