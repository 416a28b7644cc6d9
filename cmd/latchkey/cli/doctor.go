package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/doctor"
)

func (a *app) doctorCommand() *cobra.Command {
	var timeout time.Duration
	cmd := withOutput(&cobra.Command{
		Use:   "doctor",
		Short: "Check everything that a worker needs, and say what to do",
		Long: `Checks the configuration; NATS, MongoDB, KMS and Mesh as a worker uses them;
certificates and credentials in files; the clocks; and what waits for you: dead
letters, overdue grants. Run it on the machine and as the user of a worker, before the
first start and whenever something is wrong.

It makes all checks, each within --timeout, and stores nothing: KMS makes and opens a
data key that is thrown away, Mesh is asked to refresh an empty token, MongoDB to
delete a document that does not exist, and NATS receives messages that their stream
refuses.

Exit code 0: nothing failed (there may be warnings); 1: a check failed; 2: the
configuration is wrong, and nothing else was checked.`,
		Example: `  latchkey doctor -c latchkey.yaml
  latchkey doctor --output json | jq '.[] | select(.status != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				wrong := doctor.Result{Check: "configuration", Status: doctor.Failed, Detail: err.Error(), Do: "correct what is named; docs/configuration.md lists all keys"}
				if outputOf(cmd) == asJSON {
					return errors.Join(err, printJSON(cmd.OutOrStdout(), []doctor.Result{wrong}))
				}
				return err
			}
			results := append([]doctor.Result{{Check: "configuration", Status: doctor.OK, Detail: "valid"}},
				doctor.Run(cmd.Context(), cfg, doctor.Options{Timeout: timeout})...)
			failed := 0
			rows := [][]string{{"CHECK", "STATUS", "DETAIL"}}
			for _, r := range results {
				rows = append(rows, []string{r.Check, string(r.Status), r.Detail})
				if r.Do != "" {
					rows = append(rows, []string{"", "do", r.Do})
				}
				if r.Status == doctor.Failed {
					failed++
				}
			}
			if err := outputOf(cmd).show(cmd.OutOrStdout(), results, rows...); err != nil {
				return err
			}
			if failed > 0 {
				return fmt.Errorf("%d of %d checks failed", failed, len(results))
			}
			return nil
		},
	})
	durationFlag(cmd, &timeout, "timeout", 10*time.Second, positive, "longest time that each check may take")
	return cmd
}
