package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

func (a *app) grantsCommand() *cobra.Command {
	return group("grants", "Look at what is stored, without the tokens, and refresh it", a.listGrants(), a.showGrant(), a.refreshGrant())
}

// grantView is what is shown of a grant: all but its tokens.
type grantView struct {
	ID       string        `json:"id"`
	User     string        `json:"user"`
	Broker   string        `json:"broker"`
	Accounts []accountView `json:"accounts"`
	State    store.State   `json:"state"`
	Reason   events.Reason `json:"reason,omitempty"`
	Version  int64         `json:"version"`

	ConnectedAt time.Time `json:"connectedAt"`
	Access      *lifeView `json:"accessToken,omitempty"`
	Refresh     *lifeView `json:"refreshToken,omitempty"`
	Due         *dueView  `json:"due,omitempty"`
	// Tries counts failed refreshes since the last that succeeded.
	Tries int `json:"tries"`
	// UnknownSince is since when the outcome of a refresh is unknown.
	UnknownSince *time.Time `json:"unknownSince,omitempty"`
	Lease        *leaseView `json:"lease,omitempty"`
}

type accountView struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
}

type lifeView struct {
	Since     time.Time  `json:"since"`
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
	// Assumed: nobody stated the end.
	Assumed bool `json:"assumed,omitempty"`
}

type dueView struct {
	At     time.Time    `json:"at"`
	Action store.Action `json:"action"`
}

type leaseView struct {
	Owner string    `json:"owner"`
	Until time.Time `json:"until"`
}

func viewGrant(g *store.Grant) grantView {
	v := grantView{
		ID: g.ID, User: g.UserID, Broker: g.BrokerType, Accounts: make([]accountView, len(g.Accounts)),
		State: g.State, Reason: g.Reason, Version: g.Version, ConnectedAt: g.ConnectedAt,
		Access: viewLife(g.Access), Refresh: viewLife(g.Refresh), Tries: g.Tries, UnknownSince: g.Unknown,
	}
	for i, account := range g.Accounts {
		v.Accounts[i] = accountView(account)
	}
	v.Due = viewDue(g.Due)
	if g.Lease != nil {
		v.Lease = &leaseView{Owner: g.Lease.Owner, Until: g.Lease.Until}
	}
	return v
}

func viewLife(l *store.Life) *lifeView {
	if l == nil {
		return nil
	}
	return &lifeView{Since: l.Since, ExpiresAt: l.ExpiresAt, Assumed: l.Assumed}
}

func viewDue(d *store.Due) *dueView {
	if d == nil {
		return nil
	}
	return &dueView{At: d.At, Action: d.Action}
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
		return a.withStore(cmd, func(ctx context.Context, db *store.Store) error {
			g, err := db.Get(ctx, args[0])
			if errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("no grant %s", printable(args[0]))
			}
			if err != nil {
				return err
			}
			v := viewGrant(g)
			if *output == asJSON {
				return printJSON(cmd.OutOrStdout(), v)
			}
			rows := [][]string{
				{"id", v.ID}, {"user", v.User}, {"broker", v.Broker}, {"state", string(v.State)}, {"reason", cmp.Or(string(v.Reason), "-")},
				{"version", strconv.FormatInt(v.Version, 10)}, {"connected at", stamp(&v.ConnectedAt)},
				{"access token ends", v.Access.end()}, {"refresh token ends", v.Refresh.end()}, {"due", v.Due.text()},
				{"tries", strconv.Itoa(v.Tries)}, {"outcome unknown since", stamp(v.UnknownSince)}, {"lease", v.Lease.text()},
			}
			for _, account := range v.Accounts {
				rows = append(rows, []string{"account", fmt.Sprintf("%s (%s), ends %s", account.ID, account.Name, stamp(account.ExpiresAt))})
			}
			return printTable(cmd.OutOrStdout(), rows...)
		})
	}
	return cmd
}

// end tells a missing token from one without an end.
func (l *lifeView) end() string {
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

func (d *dueView) text() string {
	if d == nil {
		return "-"
	}
	return stamp(&d.At) + " " + string(d.Action)
}

func (l *leaseView) text() string {
	if l == nil {
		return "-"
	}
	return l.Owner + " until " + stamp(&l.Until)
}

// withStore opens the database for the length of do.
func (a *app) withStore(cmd *cobra.Command, do func(context.Context, *store.Store) error) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	db, err := worker.OpenStore(cmd.Context(), cfg.MongoDB)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close(context.WithoutCancel(cmd.Context())) }()
	return do(cmd.Context(), db)
}
