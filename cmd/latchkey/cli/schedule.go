package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

func (a *app) scheduleCommand() *cobra.Command {
	return group("schedule", "Look at what is due when", a.showSchedule())
}

// scheduleView is a due action, and what the stream of schedules holds of it.
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

// What the stream of schedules holds of a due action.
const (
	inStream    = "yes"
	notInStream = "no"
	// outdated: the schedule was made for another version or time; a worker puts
	// it right when it fires.
	outdated = "outdated"
	// tooFar: it is brought in when the horizon comes near.
	tooFar = "beyond the horizon"
)

func (a *app) showSchedule() *cobra.Command {
	var user string
	var within time.Duration
	var limit int
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show what is due when, nearest first",
		Long: `Shows the next actions of a user's grants, or of all grants that are due within
a time, overdue ones included. MongoDB says what is due; the last column tells
whether NATS holds the schedule. One that it lacks is put back by the workers.`,
		Example: `  latchkey schedule show --within 1h
  latchkey schedule show --user alice --output json`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVarP(&user, "user", "u", "", "only this user's grants, whenever they are due")
	cmd.Flags().DurationVar(&within, "within", time.Hour, "only what is due within this time")
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many")
	cmd.MarkFlagsMutuallyExclusive("user", "within")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("user") {
			if err := events.CheckUserID(user); err != nil {
				return &exitError{ExitUsage, fmt.Errorf("--user: %w", err)}
			}
		}
		if limit < 1 || limit > 10_000 {
			return &exitError{ExitUsage, errors.New("--limit must be from 1 to 10000")}
		}
		return a.withDispatcher(cmd, func(s *session, d *refresher.Dispatcher) error {
			grants, err := due(s.ctx, s.db, user, within, limit)
			if err != nil {
				return err
			}
			views := []scheduleView{}
			rows := [][]string{{"DUE", "ACTION", "IN NATS", "GRANT", "BROKER", "STATE", "VERSION"}}
			for _, g := range grants {
				held, err := scheduled(s.ctx, d, g, time.Now().Add(s.cfg.Refresh.Horizon))
				if err != nil {
					return err
				}
				v := scheduleView{Grant: g.ID, User: g.UserID, Broker: g.BrokerType, State: g.State, Version: g.Version, Action: g.Due.Action, At: g.Due.At, Stream: held}
				views = append(views, v)
				rows = append(rows, []string{stamp(&v.At), string(v.Action), v.Stream, v.Grant, v.Broker, string(v.State), strconv.FormatInt(v.Version, 10)})
			}
			return output.show(s.out, views, rows...)
		})
	}
	return cmd
}

// due returns the grants for which something is due, nearest first.
func due(ctx context.Context, db *store.Store, user string, within time.Duration, limit int) ([]*store.Grant, error) {
	if user == "" {
		return db.DueBefore(ctx, time.Now().Add(within), limit)
	}
	grants, err := db.ByUser(ctx, user)
	grants = slices.DeleteFunc(grants, func(g *store.Grant) bool { return g.Due == nil })
	slices.SortFunc(grants, func(a, b *store.Grant) int { return cmp.Or(a.Due.At.Compare(b.Due.At), cmp.Compare(a.ID, b.ID)) })
	return grants[:min(limit, len(grants))], err
}

// scheduled says what the stream of schedules holds of a grant's next action.
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

func (a *app) refreshGrant() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "refresh ID",
		Short: "Have a grant refreshed before it is due",
		Long: `Has a running worker refresh a grant now, by bringing its schedule forward, and
waits for what comes of it. The worker goes by its limits and by the lease as
ever: a refresh that is under way is left alone, and no token is spent twice.
A grant for which nothing is due, since no end of its tokens is known, is
refreshed too.`,
		Example: `  latchkey grants refresh mzxw6ytboi4tcmrtgq2tmnzyheydcmrt`,
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait for the workers")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withDispatcher(cmd, func(s *session, d *refresher.Dispatcher) error {
			before, err := s.db.Get(s.ctx, args[0])
			if errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("no grant %s", printable(args[0]))
			}
			if err != nil {
				return err
			}
			if why := refresher.RefreshBlocked(before, time.Now()); why != "" {
				return fmt.Errorf("not refreshed: %s", why)
			}
			if err := d.RefreshNow(s.ctx, before); err != nil {
				return err
			}
			after, err := awaitRefresh(s.ctx, s.db, before, timeout)
			if err != nil {
				return err
			}
			switch {
			case after.Version > before.Version:
				_, err = fmt.Fprintf(s.out, "refreshed %s: version %d, access token ends %s\n", after.ID, after.Version, lifeText(view.OfGrant(after).Access))
				return err
			case after.State != before.State:
				return fmt.Errorf("not refreshed: the grant is now %s (%s)", after.State, after.Reason)
			}
			return fmt.Errorf("not refreshed: the refresh failed (%d in a row); it is tried again by itself at %s", after.Attempts, dueText(view.OfDue(after.Due)))
		})
	}
	return cmd
}

// awaitRefresh waits until a worker has done something with a grant.
func awaitRefresh(ctx context.Context, db *store.Store, before *store.Grant, timeout time.Duration) (*store.Grant, error) {
	return poll(ctx, timeout, func() (*store.Grant, error) {
		g, err := db.Get(ctx, before.ID)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return nil, backoff.Permanent(errors.New("the grant was erased meanwhile"))
		case err != nil:
			return nil, backoff.Permanent(err)
		case g.Lease != nil || g.Version == before.Version && g.Epoch == before.Epoch && g.State == before.State:
			return nil, errors.New("nothing has come of it yet: does a worker run, and does latchkey_refreshes_postponed_total grow? The schedule is brought forward and stays so")
		}
		return g, nil
	})
}

// poll looks ten times a second until there is no error, the error is permanent, or time is up.
func poll[T any](ctx context.Context, timeout time.Duration, look func() (T, error)) (T, error) {
	return backoff.Retry(ctx, look, backoff.WithBackOff(backoff.NewConstantBackOff(100*time.Millisecond)), backoff.WithMaxElapsedTime(max(timeout, 1)))
}

// withDispatcher opens the database and the schedules for the length of do.
func (a *app) withDispatcher(cmd *cobra.Command, do func(*session, *refresher.Dispatcher) error) error {
	return a.with(cmd, func(s *session) error {
		db, js, err := s.installation()
		if err != nil {
			return err
		}
		return do(s, refresher.NewDispatcher(refresher.DispatcherOptions{
			JetStream: js, Store: db, Subjects: s.cfg.NATS.Subjects(), Horizon: s.cfg.Refresh.Horizon, Now: time.Now, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(),
		}))
	})
}
