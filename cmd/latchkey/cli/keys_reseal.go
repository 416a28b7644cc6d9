package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/keys"
)

func (a *app) keysReseal() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reseal",
		Short: "Seal all token sets under fresh data keys",
		Long: `Has all workers stop sealing under the data keys that there are, and seals
every token set that is under one of those under a fresh one. Workers go on
meanwhile: grants in their hands are left alone and come back to. No version
changes and no event is sent. It takes two reconcile.interval at least.

Cut short, or with grants left that were busy, it resumes where it stopped when run
again. Token sets that don't open are left as they are, and listed. Dead letters
and recovery entries are not resealed; they go in their time.

Needs MongoDB, kms:GenerateDataKey and kms:Decrypt as a worker does, and NATS
for the audit log.
Exit code 1 if token sets are left.`,
		Example: `  latchkey keys reseal
  latchkey keys reseal --rate 20 --patience 1h`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd)
	perSecond := rateFlag(cmd, 100, "token sets")
	patience := cmd.Flags().Duration("patience", 5*time.Minute, "how long to come back to grants that are busy")
	restart := cmd.Flags().Bool("restart", false, "start over although an earlier run was not finished")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		limit, err := limiter(*perSecond)
		if err != nil {
			return err
		}
		if *patience < 0 {
			return &exitError{ExitUsage, errors.New("--patience must not be negative")}
		}
		return a.with(cmd, func(s *session) error {
			db, _, err := s.installation()
			if err != nil {
				return err
			}
			env, err := s.envelope()
			if err != nil {
				return err
			}
			chain, err := s.auditing(db)
			if err != nil {
				return err
			}
			shown := newProgress("resealing", cmd.ErrOrStderr())
			reseal := keys.Reseal{
				Store: db, Envelope: env, Now: time.Now, ClockSkew: s.cfg.Worker.ClockSkew, Settle: 2 * s.cfg.Reconcile.Interval,
				Patience: *patience, Pause: min(s.cfg.Reconcile.Interval, 2*time.Second), Restart: *restart, Limit: limit, Progress: shown, Audit: chain.log,
			}
			report, err := reseal.Run(s.ctx)
			shown.done()
			if *output == asJSON {
				if printErr := printJSON(s.out, report); printErr != nil {
					return printErr
				}
			} else {
				showReseal(s.out, report)
			}
			switch {
			case err != nil:
				return fmt.Errorf("%w; run it again to go on", err)
			case len(report.Busy)+len(report.Unreadable) > 0:
				return fmt.Errorf("%d token sets are left, %d of them unreadable", len(report.Busy)+len(report.Unreadable), len(report.Unreadable))
			}
			return nil
		})
	}
	return cmd
}

func showReseal(out io.Writer, report keys.ResealReport) {
	continued := ""
	if report.Continued {
		continued = " (going on with a reseal begun then)"
	}
	fmt.Fprintf(out, "data keys made before %s seal no more%s\n", stamp(&report.Before), continued)
	fmt.Fprintf(out, "resealed %d token sets; %d are busy, %d unreadable\n", report.Resealed, len(report.Busy), len(report.Unreadable))
	if len(report.Busy) > 0 {
		fmt.Fprintf(out, "busy %s\n", printable(strings.Join(report.Busy, " ")))
	}
	faults(out, "unreadable", report.Unreadable)
}
