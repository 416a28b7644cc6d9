package cli

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/events"
)

func (a *app) grantsCommand() *cobra.Command {
	return group("grants", "Show grants without their tokens, and refresh them", a.listGrants(), a.showGrant(), a.refreshGrant(), a.reviveGrant())
}

func (a *app) showGrant() *cobra.Command {
	return withOutput(&cobra.Command{
		Use:               "show ID",
		Short:             "Show a grant",
		Example:           `  latchkey grants show mzxw6ytboi4tcmrtgq2tmnzyheydcmrt`,
		Args:              noEmpty(cobra.ExactArgs(1)),
		ValidArgsFunction: once(a.offer(offerGrants)),
		RunE: a.session((*session).openStore, func(s *session) error {
			g, err := s.grant(s.args[0], "")
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
				{"due", orDash(v.Due, dueText)},
				{"tries", strconv.Itoa(v.Tries)},
				{"refreshes fail", orDash(v.Failing, failingText)},
				{"last error", orDash(v.LastError, errorText)},
				{"reported as refused", orDash(v.Refused, func(r *view.Refused) string { return fmt.Sprintf("version %d at %s", r.Version, stamp(&r.At)) })},
				{"outcome unknown since", stamp(v.UnknownSince)},
				{"lease", orDash(v.Lease, func(l *view.Lease) string { return l.Owner + " until " + stamp(&l.Until) })},
				{"removal at Mesh", orDash(v.Removal, func(r *view.Removal) string {
					return fmt.Sprintf("since %s, tried %d times, next at %s", stamp(&r.Since), r.Tries, stamp(&r.Due))
				})},
			}
			for _, account := range v.Accounts {
				rows = append(rows, []string{"account", fmt.Sprintf("%s (%s), ends %s", account.ID, account.Name, stamp(account.ExpiresAt))})
			}
			return s.show(v, rows...)
		}),
	})
}

// lifeText says when a token expires, and whether there is one.
func lifeText(l *view.Lifetime) string {
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

// orDash returns the text of a part that a grant may not have, or a dash.
func orDash[T any](part *T, text func(*T) string) string {
	if part == nil {
		return "-"
	}
	return text(part)
}

func failingText(f *events.RefreshFailing) string {
	if f.Since == nil {
		return f.Reason
	}
	return f.Reason + " since " + stamp(f.Since)
}

func dueText(d *view.Due) string { return stamp(&d.At) + " " + string(d.Action) }

func errorText(e *view.LastError) string {
	text := stamp(&e.At) + " " + e.Class + ": " + e.Detail
	if e.Type != "" {
		text += ", errorType " + e.Type
	}
	if e.Hash != "" {
		text += ", errorHash " + e.Hash
	}
	return text
}
