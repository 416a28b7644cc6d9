package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/sandbox/bench"
)

func benchCommand() *cobra.Command {
	var o bench.Options
	var asJSON bool
	var docs string
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure workers against the bare engines, on the same servers in the same run",
		Long: `Starts PostgreSQL (where it is installed), an embedded NATS and MongoDB, a simulated
KMS and a simulated Mesh, or takes outside servers, and measures workers on them
against what the bare engines do. What was made is removed in the end, also after
ctrl-C. Ratios hold on other machines; seconds don't.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Rounds < 1 || len(o.Workers) < 1 || min(o.Users, o.Warm, o.Callers, o.Refreshes, o.Sealed, o.Few, o.Sample, o.Shared, o.Burst, o.Killed, o.Concurrency, o.Scheduled) < 1 || len(o.Partitions) < 1 || slices.Min(o.Partitions) < 1 || o.Many <= o.Few || o.DueRate <= 0 || o.DueFor <= 0 || min(o.Duration, o.BurstFor, o.Cron) <= 0 {
				return errors.New("all sizes must be above 0, and --many above --few")
			}
			var err error
			if o.Exe, err = os.Executable(); err != nil {
				return fmt.Errorf("finding this program: %w", err)
			}
			o.Progress = cmd.ErrOrStderr()
			report, failed := bench.Run(cmd.Context(), o)
			if len(report.Rows) == 0 {
				return failed
			}
			if asJSON {
				out := json.NewEncoder(cmd.OutOrStdout())
				out.SetIndent("", "  ")
				err = out.Encode(report)
			} else {
				err = report.Table(cmd.OutOrStdout())
			}
			if docs != "" && failed == nil {
				err = errors.Join(err, report.Document(docs))
			}
			return errors.Join(failed, err)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.NATSURL, "nats-url", "", "an outside NATS in place of the embedded one")
	flags.StringVar(&o.MongoDBURI, "mongodb-uri", "", "an outside MongoDB in place of the embedded FerretDB")
	flags.BoolVar(&o.SQLite, "sqlite", false, "keep the embedded database's data in SQLite even where PostgreSQL is installed; sizes are smaller")
	flags.StringSliceVar(&o.Only, "only", nil, fmt.Sprintf("what to measure of %v (default: all)", bench.Names()))
	flags.IntVar(&o.Rounds, "rounds", 3, "rounds of what is measured several times")
	flags.IntVar(&o.Users, "users", 50_000, "backlog of connects of a round, and users asked for once")
	flags.IntVar(&o.Warm, "warm", 1000, "users asked for again and again")
	flags.IntVar(&o.Callers, "callers", 64, "how many ask at once")
	flags.DurationVar(&o.Duration, "duration", 5*time.Second, "length of a round of requests for users asked for before")
	flags.DurationVar(&o.Longest, "longest", 25*time.Second, "how long a backlog may take; it is smaller where it would take longer, and the method says so. 0: no bound")
	flags.IntVar(&o.Refreshes, "refreshes", 20_000, "backlog of refreshes of a round")
	flags.IntVar(&o.Sealed, "sealed", 1_000_000, "token sets sealed while calls to KMS are counted")
	flags.IntVar(&o.Few, "few", 1000, "pending grants that memory and CPU time are compared to")
	flags.IntVar(&o.Many, "many", 1_000_000, "pending grants at which memory and CPU time are measured")
	flags.IntVar(&o.Sample, "sample", 2000, "refreshes by which memory and CPU time are measured")
	flags.Float64Var(&o.DueRate, "due-rate", 500, "grants that come due in a second; less where the machine can't")
	flags.DurationVar(&o.DueFor, "due-for", 20*time.Second, "how long grants come due at that rate")
	flags.IntSliceVar(&o.Workers, "workers", []int{1, 2, 4}, "numbers of worker processes that share a backlog")
	flags.IntVar(&o.Shared, "shared", 5000, "connects and refreshes in the backlog that workers share")
	flags.IntVar(&o.Burst, "burst", 1000, "grants that come due within a short time, for a worker and a home-made service")
	flags.DurationVar(&o.BurstFor, "burst-for", 10*time.Second, "that time")
	flags.DurationVar(&o.Cron, "cron", time.Minute, "how often the home-made service looks for what is due")
	flags.IntVar(&o.Killed, "killed", 400, "grants that are refreshed while a process is killed")
	flags.IntSliceVar(&o.Partitions, "partitions", []int{1, 8}, "numbers of partitions of one installation")
	flags.IntVar(&o.Concurrency, "concurrency", 256, "refreshes that each worker of that installation makes at once")
	flags.DurationVar(&o.Latency, "latency", 500*time.Millisecond, "how long Mesh takes there to answer")
	flags.IntVar(&o.Scheduled, "scheduled", 1_000_000, "grants whose schedules are lost with NATS, and made again by reconciliation")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	flags.StringVar(&docs, "docs", "", "a document to write the figures into, between its markers")
	return cmd
}
