package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// grantFilter narrows a list of grants. The zero value of a field does not.
type grantFilter struct {
	user, state, broker, after string
	dueWithin                  time.Duration
	limit                      int
}

// maxPage bounds --limit.
const maxPage = 10_000

var grantStates = []string{string(store.Active), string(store.MustAct), string(store.Expired), string(store.Revoked)}

func (a *app) listGrants() *cobra.Command {
	var f grantFilter
	var columns string
	cmd := withOutput(&cobra.Command{
		Use:   "list",
		Short: "List grants: a user's, or all, page by page",
		Long: `Lists grants without their tokens. With --user it lists all grants of the user,
oldest first; with --due-within the grants whose next action is due by then or
overdue, nearest first; otherwise all grants, by id.

Indexes answer --user and --due-within, but not --state and --broker: MongoDB reads
grants that do not match and skips them, so a filter that matches few may read the
whole collection, for up to mongodb.timeout. If there are more grants than --limit,
the last line on standard error says how to continue.

The table fits a terminal of 120 columns: long names and errors are cut. --columns
chooses other columns, and cuts nothing.`,
		Example: `  latchkey grants list --user alice
  latchkey grants list --state must_act --broker coinbase
  latchkey grants list --columns id,reason,error,labels
  latchkey grants list --due-within 10m --limit 20 --output json`,
		Args: cobra.NoArgs,
		RunE: a.session((*session).openStore, func(s *session) error {
			grants, next, err := f.page(s.ctx, s.db, time.Now())
			if errors.Is(err, store.ErrCursor) {
				return usage("--after: %w", err)
			}
			if err != nil {
				return err
			}
			if err := s.showGrants(grants, columns); err != nil {
				return err
			}
			if next != "" {
				fmt.Fprintf(s.stderr, "there may be more: --after %s\n", printable(next))
			}
			return nil
		}),
	})
	flags := cmd.Flags()
	a.userFlag(cmd, &f.user, "only this user's grants")
	choiceFlag(cmd, &f.state, "state", "only grants in this state", grantStates)
	a.brokerFlag(cmd, &f.broker, "only grants")
	durationFlag(cmd, &f.dueWithin, "due-within", 0, positive, "only grants that are due within this time")
	countFlag(cmd, &f.limit, "limit", 100, 1, maxPage, "list at most this many")
	flags.StringVar(&f.after, "after", "", "continue where a page ended")
	columnsFlag(cmd, &columns)
	exclusive(cmd, "user", "after", "limit") // a user's grants come in one piece
	return cmd
}

// page returns the grants that match, and where the next page begins if there may be
// one.
func (f grantFilter) page(ctx context.Context, db *store.Store, now time.Time) (grants []*store.Grant, next string, err error) {
	if f.user != "" {
		grants, err = db.ByUser(ctx, f.user)
		grants = slices.DeleteFunc(grants, func(g *store.Grant) bool {
			return f.state != "" && string(g.State) != f.state || f.broker != "" && !events.SameBroker(g.BrokerType, f.broker) ||
				f.dueWithin > 0 && (g.Due == nil || !g.Due.At.Before(now.Add(f.dueWithin)))
		})
		slices.SortFunc(grants, func(a, b *store.Grant) int {
			return cmp.Or(a.ConnectedAt.Compare(b.ConnectedAt), cmp.Compare(a.ID, b.ID))
		})
		return grants, "", err
	}
	listing := store.Listing{State: store.State(f.state), Broker: f.broker, After: f.after, Limit: f.limit}
	if f.dueWithin > 0 {
		listing.DueBefore = now.Add(f.dueWithin)
	}
	grants, err = db.List(ctx, listing)
	if err == nil && len(grants) == f.limit {
		next = listing.CursorOf(grants[len(grants)-1])
	}
	return grants, next, err
}
