package cli

import (
	"cmp"
	"context"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/latchkey/latchkey/events"
)

// What shells offer for arguments and flags. Ids come from the servers, within a bound and
// without a word if they can't be reached. They are never file names by default.

const (
	// offerWithin bounds how long somebody who presses tab waits.
	offerWithin = 2 * time.Second
	// maxOffered bounds how many values are offered.
	maxOffered = 50
)

// offered is a value with a description.
type offered struct{ value, about string }

// offerable values mean nothing to any shell: ids come from outside.
var offerable = regexp.MustCompile(`^[\pL\pN_][\pL\pN._@:+/=-]*$`)

// offering asks the servers what begins as somebody typed. args are the arguments before
// it.
type offering func(s *session, args []string, typed string) ([]offered, error)

// offer returns the completion of a flag or argument.
func (a *app) offer(find offering) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), cmp.Or(a.offerWithin, offerWithin))
		defer cancel()
		silent := &cobra.Command{}
		silent.SetContext(ctx)
		silent.SetOut(io.Discard)
		silent.SetErr(io.Discard)
		found := make(chan []offered, 1)
		go func() { // a driver may heed no context
			var all []offered
			_ = a.session(func(*session) error { return nil }, func(s *session) (err error) {
				all, err = find(s, args, typed)
				return err
			})(silent, args)
			found <- all
		}()
		values := []string{}
		select {
		case all := <-found:
			for _, o := range all {
				if len(values) < maxOffered && strings.HasPrefix(o.value, typed) && offerable.MatchString(o.value) && !slices.Contains(args, o.value) {
					values = append(values, strings.TrimSuffix(cobra.CompletionWithDesc(o.value, printable(o.about)), "\t"))
				}
			}
		case <-ctx.Done():
		}
		return values, cobra.ShellCompDirectiveNoFileComp
	}
}

// once offers something for the first argument only.
func once(offer cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return offer(cmd, args, typed)
	}
}

func offerUsers(s *session, _ []string, typed string) ([]offered, error) {
	if err := s.openStore(); err != nil {
		return nil, err
	}
	users, err := s.db.UsersBeginning(s.ctx, typed, maxOffered)
	return withoutWords(users), err
}

func offerBrokers(s *session, _ []string, typed string) ([]offered, error) {
	if err := s.openStore(); err != nil {
		return nil, err
	}
	brokers, err := s.db.BrokersBeginning(s.ctx, typed, maxOffered)
	return withoutWords(brokers), err
}

func withoutWords(values []string) (all []offered) {
	for _, v := range values {
		all = append(all, offered{value: v})
	}
	return all
}

func offerGrants(s *session, _ []string, typed string) (all []offered, err error) {
	if err := s.openStore(); err != nil {
		return nil, err
	}
	grants, err := s.db.GrantsBeginning(s.ctx, typed, maxOffered)
	for _, g := range grants {
		all = append(all, offered{g.ID, g.UserID + ", " + g.BrokerType + ", " + string(g.State)})
	}
	return all, err
}

// offerAccounts offers the accounts of the user who is the first argument.
func offerAccounts(s *session, args []string, _ string) (all []offered, err error) {
	if len(args) == 0 {
		return nil, nil
	}
	if err := events.CheckUserID(args[0]); err != nil {
		return nil, err
	}
	if err := s.openStore(); err != nil {
		return nil, err
	}
	grants, err := s.db.ByUser(s.ctx, args[0])
	for _, g := range grants {
		for _, account := range g.Accounts {
			all = append(all, offered{account.ID, g.BrokerType + ", " + account.Name})
		}
	}
	return all, err
}

func offerDeadLetters(s *session, args []string, typed string) (all []offered, err error) {
	if err := s.openDeadLetters(); err != nil {
		return nil, err
	}
	for letter, err := range s.letters.All(s.ctx) {
		if err != nil || len(all) == maxOffered {
			return all, err
		}
		if strings.HasPrefix(letter.ID, typed) && !slices.Contains(args, letter.ID) {
			all = append(all, offered{letter.ID, letter.Message + ": " + letter.Reason})
		}
	}
	return all, nil
}

// noFiles has shells offer no files for what nothing else is offered for. Cobra would.
func noFiles(cmd *cobra.Command) {
	if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if _, ok := cmd.GetFlagCompletionFunc(f.Name); !ok {
			completeWith(cmd, f.Name, cobra.NoFileCompletions)
		}
	})
	for _, sub := range cmd.Commands() {
		noFiles(sub)
	}
}

// fileFlag says that the value of a flag is the name of a file.
func fileFlag(cmd *cobra.Command, name string) {
	completeWith(cmd, name, offerFiles)
}

func offerFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}
