package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/store/audit"
)

func (a *app) deadLettersCommand() *cobra.Command {
	return group("deadletters", "Show messages that could not be handled, and replay or drop them",
		a.listDeadLetters(), a.showDeadLetter(), a.replayDeadLetters(), a.dropDeadLetters())
}

func (a *app) listDeadLetters() *cobra.Command {
	return withOutput(&cobra.Command{
		Use:   "list",
		Short: "List the dead letters, oldest first",
		Example: `  latchkey deadletters list
  latchkey deadletters list --output json | jq -r '.[] | select(.message == "integration.connected") | .id'`,
		Args: cobra.NoArgs,
		RunE: a.session((*session).openDeadLetters, func(s *session) error {
			views := []view.DeadLetter{}
			rows := [][]string{{"ID", "MESSAGE", "ATTEMPTS", "PARKED", "REASON"}}
			for letter, err := range s.letters.All(s.ctx) {
				if err != nil {
					return err
				}
				views = append(views, view.OfDeadLetter(letter))
				rows = append(rows, []string{letter.ID, letter.Message, strconv.Itoa(letter.Attempts), stamp(&letter.ParkedAt), letter.Reason})
			}
			return s.show(views, rows...)
		}),
	})
}

func (a *app) showDeadLetter() *cobra.Command {
	var body bool
	cmd := withOutput(&cobra.Command{
		Use:   "show ID",
		Short: "Show a dead letter, without its body",
		Long: `Shows a dead letter without its body, which stays sealed.

--body opens the body and prints nothing else. It prints tokens in the clear: use it
for what neither a worker nor a replay can handle, such as an answer of Mesh that
nobody could read. It needs MongoDB and KMS as a worker does, and is recorded in the
audit log.`,
		Example: `  latchkey deadletters show 0198c2f4-6d3e-7a51-9c55-3f0e9f3f7a10
  latchkey deadletters show --body 0198c2f4-6d3e-7a51-9c55-3f0e9f3f7a10`,
		Args: cobra.ExactArgs(1),
		RunE: a.session((*session).openDeadLetters, func(s *session) error {
			found, err := s.findDeadLetters()
			if err != nil {
				return err
			}
			if body {
				return s.printBody(found[0])
			}
			v := view.OfDeadLetter(found[0])
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
			return s.show(v, rows...)
		}),
	})
	cmd.Flags().BoolVar(&body, "body", false, "open the body and print it, with the tokens in it")
	return cmd
}

func (s *session) printBody(letter handlers.ParkedLetter) error {
	if letter.BodyRemoved {
		return handlers.ErrBodyRemoved
	}
	if err := s.prepareOpening(); err != nil {
		return err
	}
	return s.audit.before(audit.Opened, audit.OutcomeShow, func(ctx context.Context, letter handlers.ParkedLetter) error {
		opened, err := s.letters.Open(ctx, letter.DeadLetter)
		if err != nil {
			return err
		}
		defer clear(opened)
		_, err = s.out.Write(opened)
		return err
	})(s.ctx, letter)
}

// prepareOpening opens what it takes to open dead letters and to record that.
func (s *session) prepareOpening() error {
	if err := s.guard(); err != nil {
		return err
	}
	if err := s.openInstallation(); err != nil {
		return err
	}
	if err := s.openEnvelope(); err != nil {
		return err
	}
	if err := s.openDeadLetters(); err != nil {
		return err
	}
	return s.openAudit(s.db)
}

func (a *app) replayDeadLetters() *cobra.Command {
	var everything bool
	cmd := &cobra.Command{
		Use:   "replay ID...",
		Short: "Publish dead letters again",
		Long: `Opens each dead letter, oldest first, publishes its message to the subject from
which it came, and drops the dead letter once the message is stored. It needs
MongoDB and KMS as a worker does. It never shows the message.

A connect or disconnect without a time of its own still counts from when it first
arrived. A message that fails again becomes a new dead letter. A connect that was
refused because it was not sealed has no body to replay.

--everything is for disconnects that only name a user, as publishers for earlier
releases wrote them: it adds "everything": true to them, so that workers erase
everything that the user had connected until then. Other dead letters stay.`,
		Example: `  latchkey deadletters replay 0198c2f4-6d3e-7a51-9c55-3f0e9f3f7a10
  latchkey deadletters list -o json | jq -r '.[].id' | xargs latchkey deadletters replay`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.session((*session).openDeadLetters, func(s *session) error {
			found, err := s.findDeadLetters()
			if err != nil {
				return err
			}
			if err := s.prepareOpening(); err != nil {
				return err
			}
			replay := s.letters.Replay
			if everything {
				replay = s.letters.ReplayEverything
			}
			return s.each(found, "replayed", s.audit.before(audit.Opened, audit.OutcomeReplay, replay))
		}),
	}
	cmd.Flags().BoolVar(&everything, "everything", false, "replay disconnects that only name a user as disconnects of everything")
	return cmd
}

func (a *app) dropDeadLetters() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "drop ID...",
		Short: "Delete dead letters for good",
		Long: `Deletes dead letters for good, with their messages. It asks first; without a
terminal on standard input it needs --yes.`,
		Example: `  latchkey deadletters drop 0198c2f4-6d3e-7a51-9c55-3f0e9f3f7a10
  latchkey deadletters drop --yes 0198c2f4-6d3e-7a51-9c55-3f0e9f3f7a10`,
		Args: cobra.MinimumNArgs(1),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			return confirm(cmd, yes, fmt.Sprintf("Delete %d dead letter(s) for good?", len(args)))
		},
		RunE: a.session((*session).openDeadLetters, func(s *session) error {
			found, err := s.findDeadLetters()
			if err != nil {
				return err
			}
			if err := s.openAudit(nil); err != nil {
				return err
			}
			return s.each(found, "dropped", s.audit.before(audit.Erased, audit.OutcomeDrop, s.letters.Drop))
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func yesFlag(cmd *cobra.Command, yes *bool) {
	cmd.Flags().BoolVarP(yes, "yes", "y", false, "don't ask")
}

// confirm asks the user at the terminal unless --yes was given, and fails without a yes.
func confirm(cmd *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	if !isTerminal(cmd.InOrStdin()) {
		return usage("standard input is not a terminal; use --yes")
	}
	fmt.Fprint(cmd.ErrOrStderr(), question, " [y/N] ")
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // no answer is a no
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("not confirmed; nothing was done")
}

// findDeadLetters returns the dead letters whose ids are the arguments, oldest first.
// It is an error if one is missing.
func (s *session) findDeadLetters() (found []handlers.ParkedLetter, err error) {
	missing := slices.Clone(s.args)
	for letter, err := range s.letters.All(s.ctx) {
		if err != nil {
			return nil, err
		}
		if slices.Contains(missing, letter.ID) {
			found = append(found, letter)
			missing = slices.DeleteFunc(missing, func(id string) bool { return id == letter.ID })
		}
		if len(missing) == 0 {
			return found, nil
		}
	}
	return nil, fmt.Errorf("no dead letter %s; nothing was done", printable(strings.Join(missing, ", ")))
}

// each does something to each dead letter and reports it. One that fails does not keep
// it from the others.
func (s *session) each(found []handlers.ParkedLetter, done string, do func(context.Context, handlers.ParkedLetter) error) error {
	var failed []error
	for _, letter := range found {
		if err := do(s.ctx, letter); err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Fprintf(s.out, "%s %s (%s)\n", done, printable(letter.ID), printable(letter.Message))
	}
	return errors.Join(failed...)
}
