package cli

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/keys"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
)

func (a *app) keysRewrap() *cobra.Command {
	var to string
	var all bool
	var perSecond int
	cmd := withOutput(&cobra.Command{
		Use:   "rewrap",
		Short: "Have KMS wrap all data keys under another KMS key",
		Long: `Has KMS re-encrypt every data key that is not under the given KMS key yet. The data
keys themselves stay the same and never leave KMS; token sets do not change. Workers
may run meanwhile. If interrupted, run it again to continue.

It needs MongoDB, and the permissions kms:ReEncryptFrom on the old KMS key and
kms:ReEncryptTo on the new one; for an alias or a key id also kms:DescribeKey.

Exit code 1 if data keys are left.`,
		Example: `  latchkey keys rewrap
  latchkey keys rewrap --to arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab --rate 10`,
		Args: cobra.NoArgs,
		RunE: a.session(needing((*session).openStore, "kms"), func(s *session) error {
			client, err := worker.KMS(s.ctx, s.cfg.KMS)
			if err != nil {
				return err
			}
			shown := newProgress("rewrapping", s.stderr)
			rewrap, err := keys.NewRewrap(keys.RewrapOptions{
				Store: s.db, KMS: client, Region: client.Options().Region, To: cmp.Or(to, s.cfg.KMS.KeyID), All: all, Limit: limiter(perSecond), Progress: shown,
			})
			if err != nil {
				return err
			}
			report, err := rewrap.Run(s.ctx)
			shown.done()
			if err := s.report(report, func() {
				fmt.Fprintf(s.out, "rewrapped %d data keys to %s; %d were under it already, %d changed or went meanwhile, %d failed\n",
					report.Rewrapped, cmp.Or(report.To, "-"), report.Already, report.Changed, len(report.Failed))
				printFaults(s.out, "failed", report.Failed)
			}); err != nil {
				return err
			}
			switch {
			case err != nil:
				return fmt.Errorf("%w; run it again to continue", err)
			case len(report.Failed)+report.Changed > 0:
				return fmt.Errorf("%d data keys are left", len(report.Failed)+report.Changed)
			}
			return nil
		}),
	})
	cmd.Flags().StringVar(&to, "to", "", "id, ARN or alias of the KMS key (default: kms.key_id)")
	cmd.Flags().BoolVar(&all, "all", false, "also re-encrypt data keys that are under the KMS key already")
	rateFlag(cmd, &perSecond, 50, "calls to KMS")
	return cmd
}
