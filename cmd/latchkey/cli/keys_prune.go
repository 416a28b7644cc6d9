package cli

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/keys"
)

func (a *app) keysPrune() *cobra.Command {
	var dryRun bool
	cmd := withOutput(&cobra.Command{
		Use:   "prune",
		Short: "Delete data keys that nothing needs",
		Long: `Deletes data keys that have not been used for sealing for an hour and that nothing
needs: no grant, no connect key, no dead letter, no recovery entry. It lists the data
keys that it keeps, with the reason. It needs MongoDB and NATS, and does not call KMS.

A backup of MongoDB holds its own data keys, so you can still read it.`,
		Example: `  latchkey keys prune --dry-run
  latchkey keys prune --output json`,
		Args: cobra.NoArgs,
		RunE: a.session((*session).openStore, func(s *session) error {
			now := time.Now()
			streams, err := s.readStreams()
			if err != nil {
				return fmt.Errorf("nothing was deleted: %w", err)
			}
			prune, err := keys.NewPrune(keys.PruneOptions{Store: s.db, Streams: streams, Bounds: bounds(s.cfg), Now: now, DryRun: dryRun})
			if err != nil {
				return err
			}
			report, err := prune.Run(s.ctx)
			return cmp.Or(s.report(report, func() { s.printPrune(report) }), err)
		}),
	})
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only list what it would delete")
	return cmd
}

func (s *session) printPrune(report keys.PruneReport) {
	done := "deleted"
	if report.DryRun {
		done = "would delete"
	}
	for _, id := range report.Deleted {
		fmt.Fprintf(s.out, "%s %s\n", done, printable(id))
	}
	for _, k := range report.Kept {
		fmt.Fprintf(s.out, "kept %s: %s\n", printable(k.ID), k.Why)
	}
	fmt.Fprintf(s.out, "%s %d data keys, kept %d\n", done, len(report.Deleted), len(report.Kept))
}
