package cli

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/latchkey/latchkey/cmd/latchkey/bench"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
)

func (a *app) benchCommand() *cobra.Command {
	var o bench.Options
	cmd := withOutput(&cobra.Command{
		Use:   "bench",
		Short: "Measure a worker on your NATS and MongoDB, against the bare engines",
		Long: `Runs a worker in this process, under a NATS prefix and in a database of its own
(bench-…, latchkey_bench_…). It connects made-up users, requests their tokens, and
does the same without Latchkey: bulk upserts, FindOne and an echo. Then it removes the
streams and the database, also after ctrl-C. It calls KMS for a few data keys, and
does not call Mesh.

It takes the configuration of a worker. The NATS user needs a worker's permissions
under that prefix, and the permission to delete streams. The ratios hold on other
machines; the absolute figures do not.`,
		Example: `  latchkey bench
  latchkey bench --users 100000 --callers 64 --duration 10s --rounds 5 --output json`,
		Args: cobra.NoArgs,
		RunE: a.session(needing((*session).guard, "kms", "mesh"), func(s *session) error {
			log, err := worker.NewLogger(s.cfg.Log, a.stderr)
			if err != nil {
				return &exitError{ExitUsage, err}
			}
			o.Log = log.WithOptions(zap.IncreaseLevel(zapcore.WarnLevel)) // the worker's own lines would drown the rest
			o.Name = newName()
			o.Progress = func(what string) { fmt.Fprintln(s.stderr, what) }
			figures, err := bench.Run(s.ctx, s.cfg, o)
			if err != nil {
				return err
			}
			rows := [][]string{{"FIGURE", "LATCHKEY", "BARE", "RATIO", "SPREAD", "P99", "BARE P99", "BARE IS"}}
			for _, f := range figures {
				rows = append(rows, []string{
					f.Name, fmt.Sprintf("%.0f %s", bench.Median(f.Latchkey), f.Unit), fmt.Sprintf("%.0f", bench.Median(f.Bare)), fmt.Sprintf("%.2f", f.Ratio()), bench.Spread("%.2f", f.Ratios()),
					millis(f.LatchkeyP99), millis(f.BareP99), f.Against,
				})
			}
			return s.show(figures, rows...)
		}),
	})
	countFlag(cmd, &o.Users, "users", 1000, 1, math.MaxInt, "number of users to make up for each round")
	countFlag(cmd, &o.Callers, "callers", 64, 1, math.MaxInt, "number of concurrent requests")
	durationFlag(cmd, &o.Duration, "duration", 3*time.Second, positive, "length of a round of repeated requests")
	countFlag(cmd, &o.Rounds, "rounds", 3, 1, math.MaxInt, "number of rounds of each measurement")
	return cmd
}

func millis(values []float64) string {
	if len(values) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", bench.Median(values))
}

func newName() string {
	var raw [4]byte
	_, _ = rand.Read(raw[:]) // never fails
	return hex.EncodeToString(raw[:])
}
