package cli

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

func (a *app) verdictsCommand() *cobra.Command {
	return group("verdicts", "Decide whether grants of a broker expire when Mesh refuses their refresh tokens",
		a.listVerdicts(),
		a.decide(store.DecidedHold, "hold BROKER", "Hold verdicts at a broker until you release them",
			`From now on no grant of the broker expires because Mesh refuses its refresh
token: workers retry such grants slowly, and hand out their access tokens until
these expire. A hold that workers set by themselves (refresh.hold) ends with the
next refresh that succeeds; this one does not.`),
		a.decide(store.DecidedRelease, "release BROKER", "Let grants of a broker expire whose refresh tokens are refused",
			`Grants of the broker expire again when their refresh tokens are refused. Workers
first retry the grants that were held, within refresh.backoff.max. Until a refresh
at the broker succeeds, workers hold nothing there by themselves.`))
}

func (a *app) listVerdicts() *cobra.Command {
	return withOutput(&cobra.Command{
		Use:   "list",
		Short: "List brokers at which grants were refused in a row",
		Long: `Lists the brokers at which grants were refused since the last refresh that
succeeded, or about which an operator has decided, and since when verdicts are held.`,
		Example: `  latchkey verdicts list
  latchkey verdicts list --output json`,
		Args: cobra.NoArgs,
		RunE: a.session((*session).openStore, func(s *session) error {
			all, err := s.db.Verdicts(s.ctx)
			if err != nil {
				return err
			}
			views := make([]view.Verdicts, len(all))
			rows := [][]string{{"BROKER", "HELD SINCE", "DECIDED", "REFUSED IN A ROW", "FIRST", "LAST"}}
			for i := range all {
				v := view.OfVerdicts(all[i])
				views[i] = v
				rows = append(rows, []string{v.Broker, stamp(v.HeldSince), cmp.Or(string(v.Decided), "-"), strconv.Itoa(v.Refused), stamp(v.FirstAt), stamp(v.LastAt)})
			}
			return s.show(views, rows...)
		}),
	})
}

func (a *app) decide(d store.Decision, use, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Example: "  latchkey verdicts " + string(d) + " coinbase", Args: noEmpty(cobra.ExactArgs(1)), ValidArgsFunction: once(a.offer(offerBrokers)),
		RunE: a.session((*session).openStore, func(s *session) error {
			v, err := s.db.Decide(s.ctx, events.BrokerKey(s.args[0]), d, time.Now())
			if err != nil {
				return err
			}
			state := "given"
			if v.HeldSince != nil {
				state = "held"
			}
			_, err = fmt.Fprintf(s.out, "verdicts at %s are %s\n", printable(v.Broker), state)
			return err
		}),
	}
}
