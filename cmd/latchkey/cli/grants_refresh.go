package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// grantAction has a worker refresh a grant now.
type grantAction struct {
	cmd *cobra.Command
	// done is what happens to the grant, such as "refreshed".
	done string
	// missing says what it means if there is no such grant.
	missing string
	// start makes the refresh due, and returns the grant as it was stored before that
	// refresh.
	start func(*session, *store.Grant) (*store.Grant, error)
	// failed says that the refresh failed.
	failed func(*store.Grant) string
}

func (a *app) refreshGrant() *cobra.Command {
	return a.actOnGrant(grantAction{
		cmd: &cobra.Command{
			Use:   "refresh ID",
			Short: "Have a grant refreshed before it is due",
			Long: `Brings the schedule of a grant forward, so that a running worker refreshes it now,
and waits for the result. The worker keeps to its limits and to leases: a refresh
that is under way is left alone, and no refresh token is presented twice. This also
refreshes a grant for which nothing is due because nobody knows when its tokens
expire.`,
			Example: `  latchkey grants refresh mzxw6ytboi4tcmrtgq2tmnzyheydcmrt`,
		},
		done: "refreshed",
		start: func(s *session, g *store.Grant) (*store.Grant, error) {
			if why := refresher.RefreshBlocked(g, time.Now()); why != "" {
				return nil, fmt.Errorf("not refreshed: %s", why)
			}
			dispatcher, err := s.dispatcher()
			if err != nil {
				return nil, err
			}
			return g, dispatcher.RefreshNow(s.ctx, g)
		},
		failed: func(g *store.Grant) string {
			return fmt.Sprintf("not refreshed: the refresh failed (%d in a row)", g.Attempts)
		},
	})
}

func (a *app) reviveGrant() *cobra.Command {
	return a.actOnGrant(grantAction{
		cmd: &cobra.Command{
			Use:   "revive ID",
			Short: "Try an expired grant once more",
			Long: `Has a running worker present the refresh token of an expired grant once more,
whatever the grant expired for, and waits for the result. This works for
retention.expired after the grant expired; then its tokens are deleted. If Mesh
refuses the token the grant expires again. You can also revive a grant in the state
must_act: one whose refresh token was refused and whose access token is still valid.`,
			Example: `  latchkey grants revive mzxw6ytboi4tcmrtgq2tmnzyheydcmrt`,
		},
		done:    "revived",
		missing: ": if there was one its tokens are gone, and the user must connect again",
		start: func(s *session, g *store.Grant) (*store.Grant, error) {
			if why := refresher.ReviveBlocked(g, time.Now()); why != "" {
				return nil, fmt.Errorf("not revived: %s", why)
			}
			dispatcher, err := s.dispatcher()
			if err != nil {
				return nil, err
			}
			revived := g.Clone()
			refresher.Revive(revived, time.Now())
			err = s.db.Save(s.ctx, revived)
			if errors.Is(err, store.ErrConflict) {
				return nil, errors.New("not revived: the grant changed meanwhile")
			}
			if err != nil {
				return nil, err
			}
			if err := dispatcher.Deliver(s.ctx, revived); err != nil {
				fmt.Fprintln(s.stderr, "latchkey: warning: the workers will bring in the schedule:", err)
			}
			return revived, nil
		},
		failed: func(*store.Grant) string { return "not revived yet: the refresh failed" },
	})
}

func (a *app) actOnGrant(action grantAction) *cobra.Command {
	cmd := action.cmd
	var timeout time.Duration
	durationFlag(cmd, &timeout, "timeout", time.Minute, positive, "how long to wait for the workers")
	cmd.Args, cmd.ValidArgsFunction = noEmpty(cobra.ExactArgs(1)), once(a.offer(offerGrants))
	cmd.RunE = a.session((*session).openInstallation, func(s *session) error {
		g, err := s.grant(s.args[0], action.missing)
		if err != nil {
			return err
		}
		before, err := action.start(s, g)
		if err != nil {
			return err
		}
		after, err := awaitRefresh(s.ctx, s.db, before, timeout)
		switch {
		case err != nil:
			return err
		case after.Version > before.Version:
			_, err = fmt.Fprintf(s.out, "%s %s: version %d, access token ends %s\n", action.done, after.ID, after.Version, lifeText(view.OfGrant(after).Access))
			return err
		case after.State != before.State:
			return fmt.Errorf("not %s: the grant is now %s (%s)", action.done, after.State, after.Reason)
		}
		return fmt.Errorf("%s; it is tried again by itself at %s", action.failed(after), orDash(view.OfDue(after.Due), dueText))
	})
	return cmd
}

// grant returns a stored grant. missing is added to the error if there is none.
func (s *session) grant(id, missing string) (*store.Grant, error) {
	g, err := s.db.Get(s.ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("no grant %s%s", printable(id), missing)
	}
	return g, err
}

// awaitRefresh waits until a worker has refreshed a grant, or has tried to.
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

// poll looks ten times a second until there is no error, the error is permanent, or
// the timeout is over.
func poll[T any](ctx context.Context, timeout time.Duration, look func() (T, error)) (T, error) {
	return backoff.Retry(ctx, look, backoff.WithBackOff(backoff.NewConstantBackOff(100*time.Millisecond)), backoff.WithMaxElapsedTime(max(timeout, 1)))
}
