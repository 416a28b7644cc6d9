package cli

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/keys"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
)

func (a *app) keysRewrap() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rewrap",
		Short: "Have KMS wrap all data keys under another KMS key",
		Long: `Has KMS re-encrypt every data key that is not yet under the KMS key. The data
keys themselves stay what they are and never leave KMS; no token set changes.
Workers may run meanwhile. If interrupted, it continues with the rest when run again.

Needs MongoDB, and the permissions kms:ReEncryptFrom on the old KMS key and
kms:ReEncryptTo on the new; for an alias or a key id also kms:DescribeKey.

Exit code 1 if data keys are left.`,
		Example: `  latchkey keys rewrap
  latchkey keys rewrap --to arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab --rate 10`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd)
	to := cmd.Flags().String("to", "", "KMS key to wrap them: id, ARN or alias (default: kms.key_id)")
	all := cmd.Flags().Bool("all", false, "also the data keys that are under it already")
	perSecond := rateFlag(cmd, 50, "calls to KMS")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		limit, err := limiter(*perSecond)
		if err != nil {
			return err
		}
		return a.with(cmd, func(s *session) error {
			db, err := s.store()
			if err != nil {
				return err
			}
			client, err := worker.KMS(s.ctx, s.cfg.KMS)
			if err != nil {
				return err
			}
			shown := newProgress("rewrapping", cmd.ErrOrStderr())
			rewrap := keys.Rewrap{
				Store: db, KMS: client, Region: client.Options().Region, To: cmp.Or(*to, s.cfg.KMS.KeyID), All: *all, Limit: limit, Progress: shown,
			}
			report, err := rewrap.Run(s.ctx)
			shown.done()
			if *output == asJSON {
				if printErr := printJSON(s.out, report); printErr != nil {
					return printErr
				}
			} else {
				fmt.Fprintf(s.out, "rewrapped %d data keys to %s; %d were under it already, %d changed or went meanwhile, %d failed\n",
					report.Rewrapped, cmp.Or(report.To, "-"), report.Already, report.Changed, len(report.Failed))
				faults(s.out, "failed", report.Failed)
			}
			switch {
			case err != nil:
				return fmt.Errorf("%w; run it again to go on", err)
			case len(report.Failed)+report.Changed > 0:
				return fmt.Errorf("%d data keys are left", len(report.Failed)+report.Changed)
			}
			return nil
		})
	}
	return cmd
}
