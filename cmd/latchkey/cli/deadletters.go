package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/store/audit"
)

func (a *app) deadLettersCommand() *cobra.Command {
	return group("deadletters", "Look at messages that could not be handled, and replay or drop them",
		a.listDeadLetters(), a.showDeadLetter(), a.replayDeadLetters(), a.dropDeadLetters())
}

// letterView is what is shown of a dead letter: all but its body.
type letterView struct {
	ID       string    `json:"id"`
	Message  string    `json:"message"`
	Subject  string    `json:"subject"`
	Reason   string    `json:"reason"`
	Attempts int       `json:"attempts"`
	StoredAt time.Time `json:"storedAt"`
	ParkedAt time.Time `json:"parkedAt"`
	// DataKey names the data key that sealed the body.
	DataKey string `json:"dataKey"`
	// BodyRemoved: there is no body, and nothing to replay.
	BodyRemoved bool   `json:"bodyRemoved,omitempty"`
	Sequence    uint64 `json:"sequence"`
}

func viewLetter(l handlers.ParkedLetter) letterView {
	return letterView{
		ID: l.ID, Message: l.Message, Subject: l.Subject, Reason: l.Reason, Attempts: l.Attempts,
		StoredAt: l.StoredAt, ParkedAt: l.ParkedAt, DataKey: l.Sealed.KeyID, BodyRemoved: l.BodyRemoved, Sequence: l.Sequence,
	}
}

func (a *app) listDeadLetters() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the dead letters, oldest first",
		Example: `  latchkey deadletters list
  latchkey deadletters list --output json | jq -r '.[] | select(.message == "integration.connected") | .id'`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.with(cmd, func(s *session) error {
			letters, err := s.deadLetters(nil)
			if err != nil {
				return err
			}
			views := []letterView{}
			rows := [][]string{{"ID", "MESSAGE", "ATTEMPTS", "PARKED", "REASON"}}
			for letter, err := range letters.All(s.ctx) {
				if err != nil {
					return err
				}
				views = append(views, viewLetter(letter))
				rows = append(rows, []string{letter.ID, letter.Message, strconv.Itoa(letter.Attempts), stamp(&letter.ParkedAt), letter.Reason})
			}
			return output.show(s.out, views, rows...)
		})
	}
	return cmd
}

func (a *app) showDeadLetter() *cobra.Command {
	var body bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show a dead letter, without its body",
		Long: `Shows a dead letter without its body, which stays sealed.

--body opens it and prints nothing else: tokens in the clear, for what neither
a worker nor a replay can use, such as an answer of Mesh that could not be
read. It needs MongoDB and KMS as a worker does, and stands in the audit log.`,
		Example: `  latchkey deadletters show 0198c2f4-6d3e-7a51-9c55-3f0e9f3f7a10
  latchkey deadletters show --body 0198c2f4-6d3e-7a51-9c55-3f0e9f3f7a10`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&body, "body", false, "open the body and print it, with the tokens in it")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.with(cmd, func(s *session) error {
			_, found, err := s.findDeadLetters(args)
			if err != nil {
				return err
			}
			if body {
				return s.printBody(found[0])
			}
			v := viewLetter(found[0])
			rows := [][]string{
				{"id", v.ID},
				{"message", v.Message},
				{"subject", v.Subject},
				{"reason", v.Reason},
				{"attempts", strconv.Itoa(v.Attempts)},
				{"stored at", stamp(&v.StoredAt)},
				{"parked at", stamp(&v.ParkedAt)},
				{"data key", v.DataKey},
				{"sequence", strconv.FormatUint(v.Sequence, 10)},
			}
			if v.BodyRemoved {
				rows = append(rows, []string{"body", "removed; there is nothing to replay"})
			}
			return output.show(s.out, v, rows...)
		})
	}
	return cmd
}

// printBody prints the opened body of a dead letter.
func (s *session) printBody(letter handlers.ParkedLetter) error {
	if letter.BodyRemoved {
		return handlers.ErrBodyRemoved
	}
	letters, log, err := s.opening()
	if err != nil {
		return err
	}
	return log.before(audit.Opened, audit.OutcomeShow, func(ctx context.Context, letter handlers.ParkedLetter) error {
		opened, err := letters.Open(ctx, letter.DeadLetter)
		if err != nil {
			return err
		}
		defer clear(opened)
		_, err = s.out.Write(opened)
		return err
	})(s.ctx, letter)
}

// opening returns dead letters that open, and the log that records it.
func (s *session) opening() (*handlers.DeadLetters, *commandLog, error) {
	if err := s.guard(); err != nil {
		return nil, nil, err
	}
	db, _, err := s.installation()
	if err != nil {
		return nil, nil, err
	}
	env, err := s.envelope()
	if err != nil {
		return nil, nil, err
	}
	letters, err := s.deadLetters(env)
	if err != nil {
		return nil, nil, err
	}
	log, err := s.auditing(db)
	return letters, log, err
}

func (a *app) replayDeadLetters() *cobra.Command {
	var everything bool
	cmd := &cobra.Command{
		Use:   "replay ID...",
		Short: "Publish dead letters again, to where they came from",
		Long: `Opens each dead letter, publishes its message to the subject it came from, and
drops the dead letter once the message is stored, oldest first. Needs MongoDB
and KMS as a worker does. The message is never shown.

A connect or disconnect that states no time of its own continues to count from
when it first arrived. A message that fails again becomes a new dead letter.
A connect that had to be sealed and was not has no body left to replay.

--everything is for disconnects that name a user and nothing else, as publishers
for earlier releases wrote them: they go back with "everything": true, and all of
the user is erased that was connected until then. Others are left.`,
		Example: `  latchkey deadletters replay 0198c2f4-6d3e-7a51-9c55-3f0e9f3f7a10
  latchkey deadletters list -o json | jq -r '.[].id' | xargs latchkey deadletters replay`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(s *session) error {
				_, found, err := s.findDeadLetters(args)
				if err != nil {
					return err
				}
				letters, log, err := s.opening()
				if err != nil {
					return err
				}
				return s.each(found, "replayed", log.before(audit.Opened, audit.OutcomeReplay, func(ctx context.Context, letter handlers.ParkedLetter) error {
					if everything {
						return letters.ReplayEverything(ctx, letter)
					}
					return letters.Replay(ctx, letter)
				}))
			})
		},
	}
	cmd.Flags().BoolVar(&everything, "everything", false, "disconnects that nothing narrows mean all of their user")
	return cmd
}

func (a *app) dropDeadLetters() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "drop ID...",
		Short: "Delete dead letters for good",
		Long: `Deletes dead letters with the messages in them, for good. Asks first; where
standard input is no terminal, --yes is needed.`,
		Example: `  latchkey deadletters drop 0198c2f4-6d3e-7a51-9c55-3f0e9f3f7a10
  latchkey deadletters drop --yes 0198c2f4-6d3e-7a51-9c55-3f0e9f3f7a10`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				if err := confirm(cmd, fmt.Sprintf("Delete %d dead letter(s) for good?", len(args))); err != nil {
					return err
				}
			}
			return a.with(cmd, func(s *session) error {
				letters, found, err := s.findDeadLetters(args)
				if err != nil {
					return err
				}
				log, err := s.auditing(nil)
				if err != nil {
					return err
				}
				return s.each(found, "dropped", log.before(audit.Erased, audit.OutcomeDrop, letters.Drop))
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	return cmd
}

// confirm asks the person at the terminal, and fails without a yes.
func confirm(cmd *cobra.Command, question string) error {
	if in, ok := cmd.InOrStdin().(*os.File); !ok || !isatty.IsTerminal(in.Fd()) {
		return &exitError{ExitUsage, errors.New("standard input is no terminal to ask at; say --yes")}
	}
	fmt.Fprint(cmd.ErrOrStderr(), question, " [y/N] ")
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // no answer is a no
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("not confirmed; nothing was done")
}

// findDeadLetters returns the dead letters with these ids, oldest first; all of
// them must be there.
func (s *session) findDeadLetters(ids []string) (letters *handlers.DeadLetters, found []handlers.ParkedLetter, err error) {
	if letters, err = s.deadLetters(nil); err != nil {
		return nil, nil, err
	}
	missing := slices.Clone(ids)
	for letter, err := range letters.All(s.ctx) {
		if err != nil {
			return nil, nil, err
		}
		if slices.Contains(missing, letter.ID) {
			found = append(found, letter)
			missing = slices.DeleteFunc(missing, func(id string) bool { return id == letter.ID })
		}
		if len(missing) == 0 {
			return letters, found, nil
		}
	}
	return nil, nil, fmt.Errorf("no dead letter %s; nothing was done", printable(strings.Join(missing, ", ")))
}

// each does one thing to each dead letter and tells what was done; those that
// fail don't keep it from the others.
func (s *session) each(found []handlers.ParkedLetter, did string, do func(context.Context, handlers.ParkedLetter) error) error {
	var failed []error
	for _, letter := range found {
		if err := do(s.ctx, letter); err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Fprintf(s.out, "%s %s (%s)\n", did, printable(letter.ID), printable(letter.Message))
	}
	return errors.Join(failed...)
}
