package cli

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/memory"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
)

func (a *app) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the worker until SIGTERM or ctrl-C",
		Long: `Runs the worker. After SIGTERM or ctrl-C it takes no more work, finishes what is
under way within worker.grace, and exits. A second ctrl-C ends it at once, as a crash
does: an answer of Mesh that is on its way is lost, and with it the grant.`,
		Example: `  latchkey run -c latchkey.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			log, err := worker.NewLogger(cfg.Log, a.stderr)
			if err != nil {
				return &exitError{ExitUsage, err}
			}
			guarded, err := memory.Guard(memory.Mode(cfg.Worker.LockMemory))
			if err != nil {
				return fmt.Errorf("worker.lock_memory: %w", err)
			}
			log.Info("memory guarded", zap.String("worker", cfg.Worker.ID), zap.String("dumps", guarded.Dumps), zap.Bool("locked", guarded.Locked), zap.String("unlocked", guarded.Why))
			heap, err := memory.TuneHeap()
			if err != nil {
				log.Warn("memory has no limit but the machine's; set GOMEMLIMIT", zap.Error(err))
			}
			log.Info("garbage collection", zap.Int64("memory_limit", heap.Limit), zap.Bool("room", heap.Room))
			reg := prometheus.NewRegistry()
			reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
			if isTerminal(a.stderr) {
				defer context.AfterFunc(cmd.Context(), func() {
					fmt.Fprintln(a.stderr, "latchkey: finishing what is under way; a second ctrl-C ends the worker at once, and may lose grants")
				})()
			}
			return worker.Run(cmd.Context(), cfg, worker.Options{Log: log, Metrics: reg})
		},
	}
}

func (a *app) configCommand() *cobra.Command {
	return group("config", "Check or print the configuration", &cobra.Command{
		Use:     "check",
		Short:   "Check the configuration and report all its faults",
		Example: `  latchkey config check -c latchkey.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := a.load()
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "the configuration is valid")
			}
			return err
		},
	}, &cobra.Command{
		Use:     "print",
		Short:   "Print the effective configuration as YAML, without secrets",
		Example: `  latchkey config print -c latchkey.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			return cfg.WriteYAML(cmd.OutOrStdout())
		},
	})
}
