package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

func (a *app) verdictsCommand() *cobra.Command {
	return group("verdicts", "Decide whether grants of a broker expire when they are refused",
		a.listVerdicts(),
		a.decide(store.DecidedHold, "hold BROKER", "Hold verdicts at a broker until they are released",
			`From now on no grant of the broker expires because its refresh token is refused:
grants are tried again slowly, and served as long as their access tokens live.
Unlike what workers hold by themselves (refresh.hold), this does not end with a
refresh that succeeds.`),
		a.decide(store.DecidedRelease, "release BROKER", "Let grants of a broker expire that are refused",
			`Grants of the broker that are refused expire again, once another try has
confirmed it: those that were held within refresh.backoff.max. Workers hold
nothing there by themselves until a refresh at the broker has succeeded.`))
}

func (a *app) listVerdicts() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List brokers at which grants were refused in a row",
		Long: `Lists the brokers at which grants were refused since the last refresh that
succeeded, or about which somebody has decided, and since when verdicts are held.`,
		Example: `  latchkey verdicts list
  latchkey verdicts list --output json`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withStore(cmd, func(s *session) error {
			all, err := s.db.Verdicts(s.ctx)
			if err != nil {
				return err
			}
			views := make([]view.Verdicts, len(all))
			rows := [][]string{{"BROKER", "HELD SINCE", "DECIDED", "REFUSED IN A ROW", "FIRST", "LAST"}}
			for i, v := range all {
				views[i] = view.OfVerdicts(v)
				rows = append(rows, []string{views[i].Broker, stamp(views[i].HeldSince), cmp.Or(string(views[i].Decided), "-"), strconv.Itoa(views[i].Refused), stamp(views[i].FirstAt), stamp(views[i].LastAt)})
			}
			return output.show(s.out, views, rows...)
		})
	}
	return cmd
}

func (a *app) decide(d store.Decision, use, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Example: "  latchkey verdicts " + string(d) + " coinbase", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withStore(cmd, func(s *session) error {
				v, err := s.db.Decide(s.ctx, events.BrokerKey(args[0]), d, time.Now())
				if err != nil {
					return err
				}
				are := "given"
				if v.HeldSince != nil {
					are = "held"
				}
				_, err = fmt.Fprintf(s.out, "verdicts at %s are %s\n", printable(v.Broker), are)
				return err
			})
		},
	}
}

func (a *app) reviveGrant() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "revive ID",
		Short: "Try an expired grant once more",
		Long: `Has a running worker present the refresh token of an expired grant once more,
whatever it expired for, and waits for what comes of it. That is possible for
retention.expired after its end; then its tokens are gone. If the token is
refused the grant expires again. A grant whose refresh token was refused, and
whose access token is still served (must_act), can be tried likewise.`,
		Example: `  latchkey grants revive mzxw6ytboi4tcmrtgq2tmnzyheydcmrt`,
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait for the workers")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withDispatcher(cmd, func(s *session, d *refresher.Dispatcher) error {
			before, err := s.db.Get(s.ctx, args[0])
			if errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("no grant %s: if there was one its tokens are gone, and the user must connect again", printable(args[0]))
			}
			if err != nil {
				return err
			}
			if why := refresher.ReviveBlocked(before, time.Now()); why != "" {
				return fmt.Errorf("not revived: %s", why)
			}
			revived := before.Clone()
			refresher.Revive(revived, time.Now())
			err = s.db.Save(s.ctx, revived)
			if errors.Is(err, store.ErrConflict) {
				return errors.New("not revived: the grant changed meanwhile")
			}
			if err != nil {
				return err
			}
			if err := d.Deliver(s.ctx, revived); err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "latchkey: warning: the workers will bring in the schedule:", err)
			}
			after, err := awaitRefresh(s.ctx, s.db, revived, timeout)
			if err != nil {
				return err
			}
			switch {
			case after.Version > revived.Version:
				_, err = fmt.Fprintf(s.out, "revived %s: version %d, access token ends %s\n", after.ID, after.Version, lifeText(view.OfGrant(after).Access))
				return err
			case after.State != store.Active:
				return fmt.Errorf("not revived: the grant is now %s (%s)", after.State, after.Reason)
			}
			return fmt.Errorf("not revived yet: the refresh failed; it is tried again by itself at %s", dueText(view.OfDue(after.Due)))
		})
	}
	return cmd
}
