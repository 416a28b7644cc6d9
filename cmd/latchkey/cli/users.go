package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/streams"
)

func (a *app) usersCommand() *cobra.Command {
	return group("users", "Erase everything that is stored about a user", a.eraseUser())
}

// erasure reports what was erased.
type erasure struct {
	User string `json:"user"`
	// Grants and DeadLetters count the user's.
	Grants      int `json:"grants"`
	DeadLetters int `json:"deadLetters"`
	// Removals counts the grants that have yet to be removed at Mesh.
	Removals int `json:"removals"`
	// Events: the user's lifecycle events were erased too.
	Events bool `json:"events"`
	// Suspects are dead letters that name no user but mention this one.
	Suspects []string `json:"suspects"`
	// Sealed are dead letters that name no user and can't be opened.
	Sealed []string `json:"unopened"`
}

func (a *app) eraseUser() *cobra.Command {
	var yes, eventsToo bool
	var timeout time.Duration
	cmd := withOutput(&cobra.Command{
		Use:   "erase USER",
		Short: "Erase everything that is stored about a user",
		Long: `Disconnects everything of a user, as integration.disconnected does, and waits until
workers have erased it: grants with their tokens and schedules, answers of Mesh that
are not in the database yet, and dead letters. Subscribers receive token.revoked.

Dead letters that name no user are opened, which needs KMS: while KMS is away nothing
is erased. The command reports those that mention the user, and those that can't be
opened: you decide whether to drop them.

If mesh.remove_on_disconnect is on, a grant stays until Mesh has removed the
connection, for up to seven days. Of its tokens it keeps only the access tokens that
this takes, sealed.

--events also erases the user's lifecycle events, except
token.revoked, which subscribers may not have received yet.`,
		Example: `  latchkey users erase alice
  latchkey users erase alice --yes --events --output json`,
		Args:              oneUser,
		ValidArgsFunction: once(a.offer(offerUsers)),
		RunE: a.session(needing((*session).openInstallation, "kms"), func(s *session) error {
			if err := s.confirm(yes, fmt.Sprintf("Erase all that is stored of user %s?", printable(s.args[0]))); err != nil {
				return err
			}
			if err := s.openDeadLetters(); err != nil {
				return err
			}
			e := eraser{keptOf{s, s.args[0]}}
			report, err := e.erase(s.ctx, timeout, eventsToo)
			if err != nil {
				return err
			}
			rows := [][]string{
				{"user", report.User},
				{"grants erased", strconv.Itoa(report.Grants)},
				{"dead letters erased", strconv.Itoa(report.DeadLetters)},
				{"removals at Mesh under way", strconv.Itoa(report.Removals)},
				{"lifecycle events erased", strconv.FormatBool(report.Events)},
			}
			for _, id := range report.Suspects {
				rows = append(rows, []string{"mentioned in dead letter", id})
			}
			for _, id := range report.Sealed {
				rows = append(rows, []string{"dead letter that does not open", id})
			}
			return s.show(report, rows...)
		}),
	})
	yesFlag(cmd, &yes)
	cmd.Flags().BoolVar(&eventsToo, "events", false, "erase the user's lifecycle events too")
	durationFlag(cmd, &timeout, "timeout", time.Minute, positive, "how long to wait for the workers")
	return cmd
}

// eraser has workers erase a user.
type eraser struct{ keptOf }

func (e eraser) erase(ctx context.Context, timeout time.Duration, eventsToo bool) (erasure, error) {
	report := erasure{User: e.user}
	grants, err := e.db.ByUser(ctx, e.user)
	if err != nil {
		return report, err
	}
	letters, err := e.deadLetters(ctx)
	if err != nil {
		return report, fmt.Errorf("nothing was erased: %w", err)
	}
	report.Grants, report.DeadLetters, report.Suspects, report.Sealed = len(grants), len(letters.own), letters.mentioning, letters.unopened
	body, err := json.Marshal(events.Disconnected{UserID: e.user, Everything: true})
	if err != nil {
		return report, fmt.Errorf("encoding the disconnect: %w", err)
	}
	ack, err := e.js.Publish(ctx, e.cfg.NATS.Subjects().Disconnected(), body)
	if err != nil {
		return report, fmt.Errorf("publishing the disconnect: %w", err)
	}
	if report.Removals, err = e.await(ctx, ack.Sequence, timeout); err != nil || !eventsToo {
		return report, err
	}
	report.Events = true
	return report, e.purgeEvents(ctx)
}

// await waits until workers have handled the disconnect and erased the documents. It
// returns how many grants have yet to be removed at Mesh.
func (e eraser) await(ctx context.Context, sequence uint64, timeout time.Duration) (int, error) {
	return poll(ctx, timeout, func() (int, error) {
		handled, err := e.handled(ctx, sequence)
		var left []*store.Grant
		if err == nil && handled {
			left, err = e.db.ByUser(ctx, e.user)
		}
		if err != nil {
			return 0, backoff.Permanent(fmt.Errorf("waiting for the workers: %w", err))
		}
		// Grants that are not revoked were connected since.
		if !handled || slices.ContainsFunc(left, func(g *store.Grant) bool { return g.State == store.Revoked && (g.Removal == nil || g.Outbox != nil) }) {
			return 0, errors.New("not all is erased yet; does a worker run? The disconnect is stored, and will be carried out")
		}
		return len(slices.DeleteFunc(left, func(g *store.Grant) bool { return g.Removal == nil })), nil
	})
}

// handled reports whether workers have handled the disconnect. It does not read the
// message: the permission for that would show connects with their tokens.
func (e eraser) handled(ctx context.Context, sequence uint64) (bool, error) {
	subjects := e.cfg.NATS.Subjects()
	consumer, err := e.js.Consumer(ctx, subjects.IntegrationStream(), streams.Durable(subjects.Disconnected()))
	if err != nil {
		return false, err
	}
	return consumer.CachedInfo().AckFloor.Stream >= sequence, nil
}

// purgeEvents erases the user's lifecycle events except token.revoked.
func (e eraser) purgeEvents(ctx context.Context) error {
	all, err := streams.Lifecycle(ctx, e.js, e.cfg.NATS.Subjects())
	for _, stream := range all {
		for _, subject := range e.eventSubjects() {
			if err == nil && subject != e.cfg.NATS.Subjects().Lifecycle(events.TokenRevoked, e.user) {
				err = stream.Purge(ctx, jetstream.WithPurgeSubject(subject))
			}
		}
	}
	if err != nil {
		return fmt.Errorf("erasing lifecycle events: %w", err)
	}
	return nil
}
