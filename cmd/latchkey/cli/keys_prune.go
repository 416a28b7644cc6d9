package cli

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/keys"
)

func (a *app) keysPrune() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Delete data keys that nothing needs",
		Long: `Deletes the data keys that have sealed their last for an hour, and under which
there is nothing: no grant, no connect key, no dead letter, no recovery entry.
What it keeps it lists with the reason. Needs MongoDB and NATS; KMS is not asked.

A backup of MongoDB holds its own data keys, so it stays readable.`,
		Example: `  latchkey keys prune --dry-run
  latchkey keys prune --output json`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd)
	dryRun := cmd.Flags().Bool("dry-run", false, "only say what would be deleted")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.with(cmd, func(s *session) error {
			now := time.Now()
			db, err := s.store()
			if err != nil {
				return err
			}
			streams, err := s.readStreams()
			if err != nil {
				return fmt.Errorf("nothing was deleted: %w", err)
			}
			prune := keys.Prune{Store: db, Streams: streams, Bounds: bounds(s.cfg), Now: now, DryRun: *dryRun}
			report, err := prune.Run(s.ctx)
			if *output == asJSON {
				return cmp.Or(printJSON(s.out, report), err)
			}
			did := "deleted"
			if *dryRun {
				did = "would delete"
			}
			for _, id := range report.Deleted {
				fmt.Fprintf(s.out, "%s %s\n", did, printable(id))
			}
			for _, k := range report.Kept {
				fmt.Fprintf(s.out, "kept %s: %s\n", printable(k.ID), k.Why)
			}
			fmt.Fprintf(s.out, "%s %d data keys, kept %d\n", did, len(report.Deleted), len(report.Kept))
			return err
		})
	}
	return cmd
}
