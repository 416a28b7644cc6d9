package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/store/audit"
)

// letterFlags adds the flags of a filter of dead letters, and returns their names.
func (a *app) letterFlags(cmd *cobra.Command, f *handlers.LetterFilter) []string {
	a.userFlag(cmd, &f.User, "only those that concern this user")
	cmd.Flags().StringVar(&f.Reason, "reason", "", "only those with this in their reason; case does not matter")
	choiceFlag(cmd, &f.Message, "message", "only those of this message", handlers.LetterMessages)
	timeFlag(cmd, &f.Since, "since", "only those parked since then")
	timeFlag(cmd, &f.Before, "before", "only those parked before then")
	return []string{"user", "reason", "message", "since", "before"}
}

// showReasons shows how many dead letters there are for each reason.
func (s *session) showReasons(f handlers.LetterFilter) error {
	tally, err := s.letters.Tally(s.ctx, f)
	if err != nil {
		return err
	}
	views := make([]view.DeadLetterReason, len(tally.Reasons))
	for i, r := range tally.Reasons {
		views[i] = view.OfReasonTally(r)
	}
	return s.show(views, reasonRows(tally)...)
}

func reasonRows(tally handlers.LetterTally) [][]string {
	rows := [][]string{{"COUNT", "MESSAGE", "OLDEST", "NEWEST", "REASON"}}
	for _, r := range tally.Reasons {
		rows = append(rows, []string{strconv.Itoa(r.Letters), cmp.Or(r.Message, "-"), stamp(&r.Oldest), stamp(&r.Newest), r.Reason})
	}
	return rows
}

// bulk selects dead letters by their ids, by a filter, or all.
type bulk struct {
	filter   handlers.LetterFilter
	all, yes bool
}

const bulkHelp = `

Instead of ids, --user, --reason, --message, --since and --before select dead letters
as "deadletters list" does, or --all selects all. Then the command says how many there
are, and asks; without a terminal on standard input it needs --yes. Dead letters that
are parked meanwhile stay.`

// flags adds the flags of a selection to a command.
func (b *bulk) flags(a *app, cmd *cobra.Command) {
	names := a.letterFlags(cmd, &b.filter)
	cmd.Flags().BoolVar(&b.all, "all", false, "select all")
	yesFlag(cmd, &b.yes)
	exclusive(cmd, "all", names...)
	cmd.Args, cmd.ValidArgsFunction = noEmpty(cobra.ArbitraryArgs), a.offer(offerDeadLetters)
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		filtered := b.all || b.filter != (handlers.LetterFilter{})
		switch {
		case len(args) > 0 && filtered:
			return errors.New("give ids or a filter, not both")
		case len(args) == 0 && !filtered:
			return errors.New("give ids, a filter or --all")
		}
		return nil
	}
}

// each does something to the selected dead letters and reports it. ask: also before it is
// done to ids. prepare opens what it takes. One that fails keeps it from no other.
func (b *bulk) each(s *session, doing, done string, ask bool, prepare func() error, do func() func(context.Context, handlers.ParkedLetter) error) error {
	var found []handlers.ParkedLetter
	var count int
	if len(s.args) > 0 {
		var err error
		if found, err = s.findDeadLetters(); err != nil {
			return err
		}
		count = len(found)
	} else {
		tally, err := s.letters.Tally(s.ctx, b.filter)
		if err != nil {
			return err
		}
		if count = tally.Letters; count == 0 {
			_, err := fmt.Fprintln(s.out, "there is no such dead letter; nothing was done")
			return err
		}
		if b.filter.Through, ask = tally.Through, true; !b.yes {
			if err := printTable(s.stderr, reasonRows(tally)...); err != nil {
				return err
			}
		}
	}
	if ask {
		if err := s.confirm(b.yes, fmt.Sprintf("%s %d dead letter(s)?", doing, count)); err != nil {
			return err
		}
	}
	if err := prepare(); err != nil {
		return err
	}
	act := do()
	told := func(ctx context.Context, letter handlers.ParkedLetter) error {
		if err := act(ctx, letter); err != nil {
			return err
		}
		_, err := fmt.Fprintf(s.out, "%s %s (%s)\n", done, printable(letter.ID), printable(letter.Message))
		return err
	}
	if len(s.args) == 0 {
		n, err := s.letters.Each(s.ctx, b.filter, told)
		if err != nil {
			return fmt.Errorf("%s %d of %d: %w", done, n, count, err)
		}
		return nil
	}
	_, err := handlers.EachOf(s.ctx, func(yield func(handlers.ParkedLetter, error) bool) {
		for _, letter := range found {
			if !yield(letter, nil) {
				return
			}
		}
	}, told)
	return err
}

func (a *app) replayDeadLetters() *cobra.Command {
	var b bulk
	var everything bool
	cmd := &cobra.Command{
		Use:   "replay [ID...]",
		Short: "Publish dead letters again",
		Long: `Opens each dead letter, oldest first, publishes its message to the subject from
which it came, and drops the dead letter once the message is stored. It needs
MongoDB and KMS as a worker does. It never shows the message.

A connect or disconnect without a time of its own still counts from when it first
arrived. A message that fails again becomes a new dead letter. A connect that was
refused because it was not sealed has no body to replay.

--everything is for disconnects that only name a user, as publishers for earlier
releases wrote them: it adds "everything": true to them, so that workers erase
everything that the user had connected until then. Other dead letters stay.` + bulkHelp,
		Example: `  latchkey deadletters replay 0198c2f4-6d3e-7a51-9c55-3f0e9f3f7a10
  latchkey deadletters replay --reason max_bytes --since 24h
  latchkey deadletters replay --all --yes`,
		RunE: a.session(needing((*session).openDeadLetters, "kms"), func(s *session) error {
			return b.each(s, "Replay", "replayed", false, s.prepareOpening, func() func(context.Context, handlers.ParkedLetter) error {
				replay := s.letters.Replay
				if everything {
					replay = s.letters.ReplayEverything
				}
				return s.audit.before(audit.Opened, audit.OutcomeReplay, replay)
			})
		}),
	}
	b.flags(a, cmd)
	cmd.Flags().BoolVar(&everything, "everything", false, "replay disconnects that only name a user as disconnects of everything")
	return cmd
}

func (a *app) dropDeadLetters() *cobra.Command {
	var b bulk
	cmd := &cobra.Command{
		Use:   "drop [ID...]",
		Short: "Delete dead letters for good",
		Long: `Deletes dead letters for good, with their messages. It looks for them and then asks;
without a terminal on standard input it needs --yes.` + bulkHelp,
		Example: `  latchkey deadletters drop 0198c2f4-6d3e-7a51-9c55-3f0e9f3f7a10
  latchkey deadletters drop --yes 0198c2f4-6d3e-7a51-9c55-3f0e9f3f7a10
  latchkey deadletters drop --message answer --before 2026-03-01T00:00:00Z`,
		RunE: a.session((*session).openDeadLetters, func(s *session) error {
			return b.each(s, "Delete for good", "dropped", true, func() error { return s.openAudit(nil) }, func() func(context.Context, handlers.ParkedLetter) error {
				return s.audit.before(audit.Erased, audit.OutcomeDrop, s.letters.Drop)
			})
		}),
	}
	b.flags(a, cmd)
	return cmd
}
