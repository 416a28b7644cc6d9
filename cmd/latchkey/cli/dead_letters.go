package cli

import (
	"context"
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
	var f handlers.LetterFilter
	var all, byReason bool
	var limit int
	cmd := withOutput(&cobra.Command{
		Use:   "list",
		Short: "List the dead letters, oldest first",
		Long: `Lists the dead letters, oldest first, or with --by-reason how many there are for each
reason and message. If there are more than --limit, the last line on standard error
says so.

--user finds what names the user and what is about one of the user's grants, without
opening it, and reads the grants from MongoDB. Dead letters in which workers found no
user are nobody's: "users erase" opens them.`,
		Example: `  latchkey deadletters list
  latchkey deadletters list --by-reason
  latchkey deadletters list --user alice --since 24h
  latchkey deadletters list --all --output json | jq -r '.[] | select(.attempts > 1) | .id'`,
		Args: cobra.NoArgs,
		RunE: a.session((*session).openDeadLetters, func(s *session) error {
			if byReason {
				return s.showReasons(f)
			}
			views := []view.DeadLetter{}
			rows := [][]string{{"ID", "MESSAGE", "ATTEMPTS", "PARKED", "REASON"}}
			for letter, err := range s.letters.Matching(s.ctx, f, 1) {
				if err != nil {
					return err
				}
				if !all && len(views) == limit {
					defer fmt.Fprintln(s.stderr, "there are more: --all lists them, --by-reason counts them")
					break
				}
				views = append(views, view.OfDeadLetter(letter))
				rows = append(rows, []string{letter.ID, letter.Message, strconv.Itoa(letter.Attempts), stamp(&letter.ParkedAt), letter.Reason})
			}
			return s.show(views, rows...)
		}),
	})
	a.letterFlags(cmd, &f)
	flags := cmd.Flags()
	flags.BoolVar(&byReason, "by-reason", false, "count them by reason and message, most first")
	flags.BoolVar(&all, "all", false, "list all, however many there are")
	countFlag(cmd, &limit, "limit", 100, 1, maxPage, "list at most this many")
	exclusive(cmd, "all", "limit")
	exclusive(cmd, "by-reason", "limit")
	return cmd
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
		Args:              noEmpty(cobra.ExactArgs(1)),
		ValidArgsFunction: once(a.offer(offerDeadLetters)),
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
	if err := s.openInstallation(); err != nil {
		return err
	}
	if err := s.openBodies(); err != nil {
		return err
	}
	return s.openAudit(s.db)
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
