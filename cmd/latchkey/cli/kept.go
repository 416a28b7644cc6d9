package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store/envelope"
)

// keptOf finds what is kept of a user: what "users erase" erases, and "export" shows.
type keptOf struct {
	*session
	user string
}

// userLetters are the dead letters that may concern a user.
type userLetters struct {
	// own name the user, or are about one of the user's grants.
	own []handlers.ParkedLetter
	// mentioning are those that name no user and mention this one, unopened those that name
	// no user and can't be opened.
	mentioning, unopened []string
}

// deadLetters finds the user's dead letters. It opens those that name no user, which needs
// KMS: it fails while KMS is away, since somebody may drop what can't be opened.
func (k keptOf) deadLetters(ctx context.Context) (userLetters, error) {
	found := userLetters{mentioning: []string{}, unopened: []string{}}
	for letter, err := range k.letters.Matching(ctx, handlers.LetterFilter{User: k.user}, 1) {
		if err != nil {
			return found, err
		}
		found.own = append(found.own, letter)
	}
	for letter, err := range k.letters.Matching(ctx, handlers.LetterFilter{Unnamed: true}, 1) {
		if err != nil {
			return found, err
		}
		if letter.Sealed.KeyID == "" {
			continue
		}
		if err := k.openBodies(); err != nil {
			return found, err
		}
		mentioned, err := k.mentioned(ctx, letter.DeadLetter)
		switch {
		case ctx.Err() != nil:
			return found, ctx.Err()
		case err != nil && refresher.Outage(err) && !envelope.Refused(err):
			return found, err
		case err != nil:
			found.unopened = append(found.unopened, letter.ID)
		case mentioned:
			found.mentioning = append(found.mentioning, letter.ID)
		}
	}
	return found, nil
}

// mentioned reports whether a dead letter's body holds the user's id as a JSON string.
func (k keptOf) mentioned(ctx context.Context, letter handlers.DeadLetter) (bool, error) {
	quoted, err := json.Marshal(k.user)
	if err != nil {
		return false, fmt.Errorf("encoding the user: %w", err)
	}
	body, err := k.letters.Open(ctx, letter)
	if err != nil {
		return false, err
	}
	defer clear(body)
	return slices.Contains(events.FindUsers(body), k.user) || bytes.Contains(body, quoted) || bytes.Contains(body, []byte(`"`+k.user+`"`)), nil
}

// eventSubjects are the subjects of what is published about the user.
func (k keptOf) eventSubjects() []string {
	subjects := []string{k.cfg.NATS.Subjects().Rejected(k.user)}
	for _, kind := range events.LifecycleKinds {
		subjects = append(subjects, k.cfg.NATS.Subjects().Lifecycle(kind, k.user))
	}
	return subjects
}
