package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// grantFilter is what narrows a list of grants.
type grantFilter struct {
	user, state, broker, after string
	dueWithin                  time.Duration
	limit                      int
}

// maxPage bounds the grants of one page.
const maxPage = 10_000

var grantStates = []string{string(store.Active), string(store.MustAct), string(store.Expired), string(store.Revoked)}

func (f grantFilter) check(cmd *cobra.Command) error {
	if cmd.Flags().Changed("user") {
		if err := events.CheckUserID(f.user); err != nil {
			return fmt.Errorf("--user: %w", err)
		}
	}
	switch {
	case f.state != "" && !slices.Contains(grantStates, f.state):
		return fmt.Errorf("--state: must be one of %s", strings.Join(grantStates, ", "))
	case cmd.Flags().Changed("due-within") && f.dueWithin <= 0:
		return errors.New("--due-within: must be more than 0")
	case f.limit < 1 || f.limit > maxPage:
		return fmt.Errorf("--limit: must be from 1 to %d", maxPage)
	case f.user != "" && f.after != "":
		return errors.New("--after: a user's grants come in one piece")
	}
	return nil
}

func (a *app) listGrants() *cobra.Command {
	var f grantFilter
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List grants: a user's, or all, page by page",
		Long: `Lists grants without their tokens. With --user all grants of the user, oldest
first; with --due-within those whose next action is due by then (or overdue),
nearest first; else all, in the order of their ids.

--user and --due-within are answered by indexes. --state and --broker are not:
grants that don't match are read and skipped, so a filter that few match may
read the whole collection, for up to mongodb.timeout. Where there is more than
--limit, the last line on standard error says how to continue.`,
		Example: `  latchkey grants list --user alice
  latchkey grants list --state must_act --broker coinbase
  latchkey grants list --due-within 10m --limit 20 --output json`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.user, "user", "u", "", "only this user's")
	flags.StringVar(&f.state, "state", "", "only in this state: "+strings.Join(grantStates, ", "))
	flags.StringVar(&f.broker, "broker", "", "only at this broker type, in any case")
	flags.DurationVar(&f.dueWithin, "due-within", 0, "only what is due within this time")
	flags.IntVar(&f.limit, "limit", 100, "at most so many")
	flags.StringVar(&f.after, "after", "", "continue where a page ended")
	complete(cmd, "state", grantStates...)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.check(cmd); err != nil {
			return &exitError{ExitUsage, err}
		}
		return a.withStore(cmd, func(s *session) error {
			grants, next, err := f.page(s.ctx, s.db, cmd.Flags().Changed("due-within"), time.Now())
			if errors.Is(err, store.ErrCursor) {
				return &exitError{ExitUsage, fmt.Errorf("--after: %w", err)}
			}
			if err != nil {
				return err
			}
			if err := showGrants(s.out, *output, grants); err != nil {
				return err
			}
			if next != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "there may be more: --after %s\n", printable(next))
			}
			return nil
		})
	}
	return cmd
}

// page returns the grants that are asked for, and where the next page begins, if
// there may be one.
func (f grantFilter) page(ctx context.Context, db *store.Store, due bool, now time.Time) (grants []*store.Grant, next string, err error) {
	if f.user != "" {
		grants, err = db.ByUser(ctx, f.user)
		grants = slices.DeleteFunc(grants, func(g *store.Grant) bool {
			return f.state != "" && string(g.State) != f.state || f.broker != "" && !events.SameBroker(g.BrokerType, f.broker) ||
				due && (g.Due == nil || !g.Due.At.Before(now.Add(f.dueWithin)))
		})
		slices.SortFunc(grants, func(a, b *store.Grant) int {
			return cmp.Or(a.ConnectedAt.Compare(b.ConnectedAt), cmp.Compare(a.ID, b.ID))
		})
		return grants, "", err
	}
	listing := store.Listing{State: store.State(f.state), Broker: f.broker, After: f.after, Limit: f.limit}
	if due {
		listing.DueBefore = now.Add(f.dueWithin)
	}
	grants, err = db.List(ctx, listing)
	if err == nil && len(grants) == f.limit {
		next = listing.CursorOf(grants[len(grants)-1])
	}
	return grants, next, err
}

func labelsText(labels map[string]string) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, name+"="+labels[name])
	}
	return strings.Join(out, ",")
}

// shortError is the word for a last error in a list.
func shortError(e *view.LastError) string {
	if e == nil {
		return "-"
	}
	return cmp.Or(e.Type, e.Class)
}

func showGrants(out io.Writer, output format, grants []*store.Grant) error {
	views := make([]view.Grant, len(grants))
	rows := [][]string{{"ID", "USER", "BROKER", "STATE", "REASON", "VERSION", "ACCESS ENDS", "REFRESH ENDS", "DUE", "TRIES", "ERROR", "ACCOUNTS", "LABELS"}}
	for i, g := range grants {
		v := view.OfGrant(g)
		views[i] = v
		ids := make([]string, len(v.Accounts))
		for i, account := range v.Accounts {
			ids[i] = account.ID
		}
		rows = append(rows, []string{
			v.ID, v.User, v.Broker, string(v.State), cmp.Or(string(v.Reason), "-"), strconv.FormatInt(v.Version, 10),
			lifeText(v.Access), lifeText(v.Refresh), dueText(v.Due), strconv.Itoa(v.Tries), shortError(v.LastError), cmp.Or(strings.Join(ids, ","), "-"), cmp.Or(labelsText(v.Labels), "-"),
		})
	}
	return output.show(out, views, rows...)
}
