package cli

import (
	"bytes"
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
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/streams"
)

func (a *app) usersCommand() *cobra.Command {
	return group("users", "Act on all that is stored of a user", a.eraseUser())
}

// erasure is what is told of an erasure.
type erasure struct {
	User string `json:"user"`
	// Grants and DeadLetters are how many of the user's there were.
	Grants      int `json:"grants"`
	DeadLetters int `json:"deadLetters"`
	// Removals are how many grants wait to be removed at Mesh.
	Removals int `json:"removals"`
	// Events is whether the user's lifecycle events were erased too.
	Events bool `json:"events"`
	// Suspects are dead letters of nobody known that mention the user.
	Suspects []string `json:"suspects"`
	// Unopened are dead letters of nobody known that don't open: whom they concern
	// can't be told.
	Unopened []string `json:"unopened"`
}

func (a *app) eraseUser() *cobra.Command {
	var yes, eventsToo bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "erase USER",
		Short: "Erase all that is stored of a user",
		Long: `Disconnects everything of a user, as integration.disconnected does, and waits
until workers have erased it: the grants with their tokens and schedules, answers
on their way into the database, and dead letters. Subscribers get token.revoked.

Dead letters that name no user are opened (which needs KMS) and those that
mention the user are reported; whether to drop them is for you to decide. So are
those that don't open.

Where mesh.remove_on_disconnect is on, the record of a grant stays until Mesh has
removed what was connected, or for seven days at most: with the access tokens for
that, sealed, and nothing else.

--events also erases what the lifecycle stream holds of the user, but for
token.revoked, which subscribers may still have to learn.`,
		Example: `  latchkey users erase alice
  latchkey users erase alice --yes --events --output json`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	cmd.Flags().BoolVar(&eventsToo, "events", false, "erase the user's lifecycle events too")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait for the workers")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		user := args[0]
		if err := events.CheckUserID(user); err != nil {
			return &exitError{ExitUsage, err}
		}
		return a.with(cmd, func(s *session) error {
			if !yes {
				if err := confirm(cmd, fmt.Sprintf("Erase all that is stored of user %s?", printable(user))); err != nil {
					return err
				}
			}
			db, js, err := s.installation()
			if err != nil {
				return err
			}
			e := eraser{s: s, db: db, js: js, subjects: s.cfg.NATS.Subjects(), user: user}
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
			for _, id := range report.Unopened {
				rows = append(rows, []string{"dead letter that does not open", id})
			}
			return output.show(s.out, report, rows...)
		})
	}
	return cmd
}

// eraser has the workers erase a user.
type eraser struct {
	s        *session
	db       *store.Store
	js       jetstream.JetStream
	subjects events.Subjects
	user     string
}

func (e *eraser) erase(ctx context.Context, timeout time.Duration, eventsToo bool) (erasure, error) {
	report := erasure{User: e.user, Suspects: []string{}, Unopened: []string{}}
	grants, err := e.db.ByUser(ctx, e.user)
	if err != nil {
		return report, err
	}
	report.Grants = len(grants)
	if err := e.look(ctx, &report); err != nil {
		return report, err
	}
	body, err := json.Marshal(events.Disconnected{UserID: e.user, Everything: true})
	if err != nil {
		return report, fmt.Errorf("encoding the disconnect: %w", err)
	}
	ack, err := e.js.Publish(ctx, e.subjects.Disconnected(), body)
	if err != nil {
		return report, fmt.Errorf("publishing the disconnect: %w", err)
	}
	if err := e.await(ctx, &report, ack.Sequence, timeout); err != nil {
		return report, err
	}
	if eventsToo {
		if err := e.purgeEvents(ctx); err != nil {
			return report, err
		}
		report.Events = true
	}
	return report, nil
}

// await waits until the disconnect has been handled and the documents are gone.
func (e *eraser) await(ctx context.Context, report *erasure, sequence uint64, timeout time.Duration) (err error) {
	report.Removals, err = poll(ctx, timeout, func() (removals int, err error) {
		handled, err := e.handled(ctx, sequence)
		var left []*store.Grant
		if err == nil && handled {
			left, err = e.db.ByUser(ctx, e.user)
		}
		if err != nil {
			return 0, backoff.Permanent(fmt.Errorf("waiting for the workers: %w", err))
		}
		// What is not revoked was connected since.
		if !handled || slices.ContainsFunc(left, func(g *store.Grant) bool { return g.State == store.Revoked && (g.Removal == nil || g.Outbox != nil) }) {
			return 0, errors.New("not all is erased yet; does a worker run? The disconnect is stored, and will be carried out")
		}
		return len(slices.DeleteFunc(left, func(g *store.Grant) bool { return g.Removal == nil })), nil
	})
	return err
}

// handled reports whether the workers have handled a disconnect. The message
// itself is not looked for: who may look there sees connects with their tokens.
func (e *eraser) handled(ctx context.Context, sequence uint64) (bool, error) {
	consumer, err := e.js.Consumer(ctx, e.subjects.IntegrationStream(), streams.Durable(e.subjects.Disconnected()))
	if err != nil {
		return false, err
	}
	return consumer.CachedInfo().AckFloor.Stream >= sequence, nil
}

// look counts the user's dead letters, and finds those that name no user but
// mention this one.
func (e *eraser) look(ctx context.Context, report *erasure) error {
	letters, err := e.s.deadLetters(nil)
	if err != nil {
		return err
	}
	for letter, err := range letters.All(ctx) {
		if err != nil {
			return err
		}
		switch {
		case letter.Tag == store.UserTag(e.user) || slices.Contains(letter.Users, store.UserTag(e.user)):
			report.DeadLetters++
		case letter.Tag == events.UnknownTag && letter.Sealed.KeyID != "":
			mentioned, err := e.mentioned(ctx, letter.DeadLetter)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				report.Unopened = append(report.Unopened, letter.ID)
			case mentioned:
				report.Suspects = append(report.Suspects, letter.ID)
			}
		}
	}
	return nil
}

// mentioned reports whether a dead letter's body holds the user's id as a text.
func (e *eraser) mentioned(ctx context.Context, letter handlers.DeadLetter) (bool, error) {
	quoted, err := json.Marshal(e.user)
	if err != nil {
		return false, fmt.Errorf("encoding the user: %w", err)
	}
	env, err := e.s.envelope()
	if err != nil {
		return false, err
	}
	letters, err := e.s.deadLetters(env)
	if err != nil {
		return false, err
	}
	body, err := letters.Open(ctx, letter)
	if err != nil {
		return false, err
	}
	defer clear(body)
	return slices.Contains(events.FindUsers(body), e.user) || bytes.Contains(body, quoted) || bytes.Contains(body, []byte(`"`+e.user+`"`)), nil
}

// purgeEvents erases the user's lifecycle events but for token.revoked.
func (e *eraser) purgeEvents(ctx context.Context) error {
	stream, err := e.js.Stream(ctx, e.subjects.LifecycleStream())
	for _, kind := range events.LifecycleKinds {
		if err == nil && kind != events.TokenRevoked {
			err = stream.Purge(ctx, jetstream.WithPurgeSubject(e.subjects.Lifecycle(kind, e.user)))
		}
	}
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(e.subjects.Rejected(e.user)))
	}
	if err != nil {
		return fmt.Errorf("erasing lifecycle events: %w", err)
	}
	return nil
}
