package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

func (a *app) grantsCommand() *cobra.Command {
	return group("grants", "Look at what is stored, without the tokens, and refresh it", a.listGrants(), a.showGrant(), a.refreshGrant(), a.reviveGrant())
}

func (a *app) showGrant() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a grant",
		Example: `  latchkey grants show mzxw6ytboi4tcmrtgq2tmnzyheydcmrt`,
		Args:    cobra.ExactArgs(1),
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withStore(cmd, func(s *session) error {
			g, err := s.db.Get(s.ctx, args[0])
			if errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("no grant %s", printable(args[0]))
			}
			if err != nil {
				return err
			}
			v := view.OfGrant(g)
			rows := [][]string{
				{"id", v.ID},
				{"user", v.User},
				{"broker", v.Broker},
				{"state", string(v.State)},
				{"reason", cmp.Or(string(v.Reason), "-")},
				{"version", strconv.FormatInt(v.Version, 10)},
				{"connected at", stamp(&v.ConnectedAt)},
				{"access token ends", lifeText(v.Access)},
				{"refresh token ends", lifeText(v.Refresh)},
				{"due", dueText(v.Due)},
				{"tries", strconv.Itoa(v.Tries)},
				{"refreshes fail", failingText(v.Failing)},
				{"last error", errorText(v.LastError)},
				{"reported as refused", refusedText(v.Refused)},
				{"outcome unknown since", stamp(v.UnknownSince)},
				{"lease", leaseText(v.Lease)},
				{"removal at Mesh", removalText(v.Removal)},
			}
			for _, account := range v.Accounts {
				rows = append(rows, []string{"account", fmt.Sprintf("%s (%s), ends %s", account.ID, account.Name, stamp(account.ExpiresAt))})
			}
			return output.show(s.out, v, rows...)
		})
	}
	return cmd
}

// lifeText tells a missing token from one without an end.
func lifeText(l *view.Life) string {
	switch {
	case l == nil:
		return "no token"
	case l.ExpiresAt == nil:
		return "never"
	case l.Assumed:
		return stamp(l.ExpiresAt) + " (assumed)"
	}
	return stamp(l.ExpiresAt)
}

func failingText(f *events.RefreshFailing) string {
	switch {
	case f == nil:
		return "-"
	case f.Since == nil:
		return f.Reason
	}
	return f.Reason + " since " + stamp(f.Since)
}

func refusedText(r *view.Refused) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("version %d at %s", r.Version, stamp(&r.At))
}

func dueText(d *view.Due) string {
	if d == nil {
		return "-"
	}
	return stamp(&d.At) + " " + string(d.Action)
}

func removalText(r *view.Removal) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("since %s, tried %d times, next at %s", stamp(&r.Since), r.Tries, stamp(&r.Due))
}

func leaseText(l *view.Lease) string {
	if l == nil {
		return "-"
	}
	return l.Owner + " until " + stamp(&l.Until)
}

func errorText(e *view.LastError) string {
	if e == nil {
		return "-"
	}
	text := stamp(&e.At) + " " + e.Class + ": " + e.Detail
	if e.Type != "" {
		text += ", errorType " + e.Type
	}
	if e.Hash != "" {
		text += ", errorHash " + e.Hash
	}
	return text
}

// withStore opens the database for the length of do.
func (a *app) withStore(cmd *cobra.Command, do func(*session) error) error {
	return a.with(cmd, func(s *session) error {
		if _, err := s.store(); err != nil {
			return err
		}
		return do(s)
	})
}
