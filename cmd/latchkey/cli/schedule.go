package cli

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

func (a *app) scheduleCommand() *cobra.Command {
	return group("schedule", "Show what is due when", a.showSchedule())
}

// scheduleView is a due action, and whether NATS holds a schedule for it.
type scheduleView struct {
	Grant   string       `json:"grant"`
	User    string       `json:"user"`
	Broker  string       `json:"broker"`
	State   store.State  `json:"state"`
	Version int64        `json:"version"`
	Action  store.Action `json:"action"`
	At      time.Time    `json:"at"`
	Stream  string       `json:"stream"`
}

// Values of scheduleView.Stream.
const (
	inStream    = "yes"
	notInStream = "no"
	// outdated: the schedule is for another version or time; a worker corrects it when
	// it fires.
	outdated = "outdated"
	// tooFar: workers publish the schedule when the horizon comes near.
	tooFar = "beyond the horizon"
)

func (a *app) showSchedule() *cobra.Command {
	var user string
	var within time.Duration
	var limit int
	cmd := withOutput(&cobra.Command{
		Use:   "show",
		Short: "Show what is due when, nearest first",
		Long: `Shows the next actions of one user's grants, or of all grants for which something
is due within a time or overdue. MongoDB says what is due; the column IN NATS says
whether NATS holds the schedule. Workers replace a schedule that is missing.`,
		Example: `  latchkey schedule show --within 1h
  latchkey schedule show --user alice --output json`,
		Args: cobra.NoArgs,
		RunE: a.session((*session).openInstallation, func(s *session) error {
			grants, err := due(s.ctx, s.db, user, within, limit)
			if err != nil {
				return err
			}
			views := []scheduleView{}
			rows := [][]string{{"DUE", "ACTION", "IN NATS", "GRANT", "BROKER", "STATE", "VERSION"}}
			dispatcher, err := s.dispatcher()
			if err != nil {
				return err
			}
			for _, g := range grants {
				state, err := scheduled(s.ctx, dispatcher, g, time.Now().Add(s.cfg.Refresh.Horizon))
				if err != nil {
					return err
				}
				v := scheduleView{Grant: g.ID, User: g.UserID, Broker: g.BrokerType, State: g.State, Version: g.Version, Action: g.Due.Action, At: g.Due.At, Stream: state}
				views = append(views, v)
				rows = append(rows, []string{stamp(&v.At), string(v.Action), v.Stream, v.Grant, v.Broker, string(v.State), strconv.FormatInt(v.Version, 10)})
			}
			return s.show(views, rows...)
		}),
	})
	a.userFlag(cmd, &user, "only this user's grants, whenever they are due")
	durationFlag(cmd, &within, "within", time.Hour, positive, "only what is due within this time")
	countFlag(cmd, &limit, "limit", 100, 1, maxPage, "show at most this many")
	exclusive(cmd, "user", "within")
	return cmd
}

// due returns grants for which something is due, nearest first.
func due(ctx context.Context, db *store.Store, user string, within time.Duration, limit int) ([]*store.Grant, error) {
	if user == "" {
		return db.DueBefore(ctx, time.Now().Add(within), limit)
	}
	grants, err := db.ByUser(ctx, user)
	grants = slices.DeleteFunc(grants, func(g *store.Grant) bool { return g.Due == nil })
	slices.SortFunc(grants, func(a, b *store.Grant) int { return cmp.Or(a.Due.At.Compare(b.Due.At), cmp.Compare(a.ID, b.ID)) })
	return grants[:min(limit, len(grants))], err
}

// scheduled says whether NATS holds the schedule of a grant's next action.
func scheduled(ctx context.Context, d *refresher.Dispatcher, g *store.Grant, horizon time.Time) (string, error) {
	m, _, found, err := d.Scheduled(ctx, g.ID)
	var invalid *events.InvalidError
	switch {
	case errors.As(err, &invalid):
		return outdated, nil
	case err != nil:
		return "", err
	case found && m.Version == g.Version && m.DueAt.Equal(g.Due.At):
		return inStream, nil
	case found:
		return outdated, nil
	case g.Due.At.After(horizon):
		return tooFar, nil
	}
	return notInStream, nil
}
