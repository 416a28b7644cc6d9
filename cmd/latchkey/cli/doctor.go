package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/doctor"
)

func (a *app) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check all that a worker needs, and say what to do",
		Long: `Checks the configuration; NATS, MongoDB, KMS and Mesh as a worker uses them; the
clocks; and what waits for somebody: dead letters, overdue grants. Run it as a
worker would run, where it would run, before the first start and whenever
something is wrong.

All checks are made, each within --timeout. Nothing is stored anywhere: KMS makes
and opens a data key that is thrown away, Mesh is asked to refresh an empty
token, MongoDB to delete a document that does not exist, and NATS is sent
messages that their stream refuses.

Exit code 0: nothing failed (there may be warnings); 1: something failed;
2: the configuration is wrong, and nothing else was checked.`,
		Example: `  latchkey doctor -c latchkey.yaml
  latchkey doctor --output json | jq '.[] | select(.status != "ok")'`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd)
	timeout := cmd.Flags().Duration("timeout", 10*time.Second, "longest time that each check may take")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *timeout <= 0 {
			return &exitError{ExitUsage, errors.New("--timeout must be positive")}
		}
		cfg, err := a.load()
		if err != nil {
			wrong := doctor.Result{Check: "configuration", Status: doctor.Failed, Detail: err.Error(), Do: "correct what is named; docs/configuration.md lists all keys"}
			if *output == asJSON {
				return errors.Join(err, printJSON(cmd.OutOrStdout(), []doctor.Result{wrong}))
			}
			return err
		}
		results := append([]doctor.Result{{Check: "configuration", Status: doctor.OK, Detail: "valid"}},
			doctor.Run(cmd.Context(), cfg, doctor.Options{Timeout: *timeout})...)
		if err := showResults(cmd, *output, results); err != nil {
			return err
		}
		count := 0
		for _, r := range results {
			if r.Status == doctor.Failed {
				count++
			}
		}
		if count > 0 {
			return fmt.Errorf("%d of %d checks failed", count, len(results))
		}
		return nil
	}
	return cmd
}

func showResults(cmd *cobra.Command, output format, results []doctor.Result) error {
	rows := [][]string{{"CHECK", "STATUS", "DETAIL"}}
	for _, r := range results {
		rows = append(rows, []string{r.Check, string(r.Status), r.Detail})
		if r.Do != "" {
			rows = append(rows, []string{"", "do", r.Do})
		}
	}
	return output.show(cmd.OutOrStdout(), results, rows...)
}
