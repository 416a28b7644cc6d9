package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func yesFlag(cmd *cobra.Command, yes *bool) {
	cmd.Flags().BoolVarP(yes, "yes", "y", false, "don't ask")
}

var errUnconfirmed = errors.New("not confirmed; nothing was done")

// confirm asks the user at the terminal unless --yes was given, and fails without a yes.
func (s *session) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if !isTerminal(s.in) {
		return usage("standard input is not a terminal; use --yes")
	}
	return ask(s.ctx, s.in, s.stderr, question)
}

// ask fails without a yes, and as soon as the context ends: what is then typed is not read.
func ask(ctx context.Context, in io.Reader, out io.Writer, question string) error {
	fmt.Fprint(out, question, " [y/N] ")
	answered := make(chan string, 1)
	go func() { // a read from a terminal can't be stopped; it ends with the process
		answer, _ := bufio.NewReader(in).ReadString('\n') // no answer is a no
		answered <- answer
	}()
	select {
	case answer := <-answered:
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "y", "yes":
			return ctx.Err()
		}
	case <-ctx.Done():
		fmt.Fprintln(out)
	}
	return errUnconfirmed
}
