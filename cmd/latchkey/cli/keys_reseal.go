package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/keys"
)

func (a *app) keysReseal() *cobra.Command {
	var patience time.Duration
	var restart bool
	var perSecond int
	cmd := withOutput(&cobra.Command{
		Use:   "reseal",
		Short: "Seal all token sets under new data keys",
		Long: `Makes all workers stop sealing under the present data keys, and seals every token
set that is under one of them under a new one. Workers keep running: the command
skips grants that they are working on, and comes back to them. No version changes and
no event is sent. It takes at least two reconcile.interval.

If it was interrupted, or grants stayed busy, run it again to continue. Token sets
that can't be opened stay as they are, and are listed. Dead letters and recovery
entries are not resealed; they are deleted in their time.

It needs MongoDB, kms:GenerateDataKey and kms:Decrypt as a worker does, and NATS for
the audit log.
Exit code 1 if token sets are left.`,
		Example: `  latchkey keys reseal
  latchkey keys reseal --rate 20 --patience 1h`,
		Args: cobra.NoArgs,
		RunE: a.session(needing((*session).openInstallation, "kms"), func(s *session) error {
			if err := s.openEnvelope(); err != nil {
				return err
			}
			if err := s.openAudit(s.db); err != nil {
				return err
			}
			shown := newProgress("resealing", s.stderr)
			reseal, err := keys.NewReseal(keys.ResealOptions{
				Store: s.db, Envelope: s.env, Now: time.Now, ClockSkew: s.cfg.Worker.ClockSkew, RolloutDelay: 2 * s.cfg.Reconcile.Interval,
				Patience: patience, Pause: min(s.cfg.Reconcile.Interval, 2*time.Second), Restart: restart, Limit: limiter(perSecond), Progress: shown, Audit: s.audit.log,
			})
			if err != nil {
				return err
			}
			report, err := reseal.Run(s.ctx)
			shown.done()
			if err := s.report(report, func() { s.printReseal(report) }); err != nil {
				return err
			}
			switch {
			case err != nil:
				return fmt.Errorf("%w; run it again to continue", err)
			case len(report.Busy)+len(report.Unreadable) > 0:
				return fmt.Errorf("%d token sets are left, %d of them unreadable", len(report.Busy)+len(report.Unreadable), len(report.Unreadable))
			}
			return nil
		}),
	})
	durationFlag(cmd, &patience, "patience", 5*time.Minute, notNegative, "how long to come back to busy grants")
	cmd.Flags().BoolVar(&restart, "restart", false, "start over even if an earlier run was not finished")
	rateFlag(cmd, &perSecond, 100, "token sets")
	return cmd
}

func (s *session) printReseal(report keys.ResealReport) {
	continued := ""
	if report.Continued {
		continued = " (continuing a reseal begun then)"
	}
	fmt.Fprintf(s.out, "data keys made before %s seal no more%s\n", stamp(&report.Before), continued)
	fmt.Fprintf(s.out, "resealed %d token sets; %d are busy, %d unreadable\n", report.Resealed, len(report.Busy), len(report.Unreadable))
	if len(report.Busy) > 0 {
		fmt.Fprintf(s.out, "busy %s\n", printable(strings.Join(report.Busy, " ")))
	}
	printFaults(s.out, "unreadable", report.Unreadable)
}
