// Package cli is the command line of latchkey.
package cli

//go:generate go test . -run TestReference -update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/build"
	"github.com/latchkey/latchkey/config"
)

// Exit codes.
const (
	ExitOK      = 0
	ExitFailed  = 1 // what was asked for could not be done
	ExitUsage   = 2 // the command line or the configuration is wrong
	ExitRefused = 3 // a token request was refused; the code says why
)

// exitError carries the exit code of an error.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usage returns the error of a wrong command line.
func usage(format string, args ...any) error {
	return &exitError{ExitUsage, fmt.Errorf(format, args...)}
}

// app is shared by all commands.
type app struct {
	environ    []string
	configPath string
	stderr     io.Writer
	// offerWithin bounds completion; 0: offerWithin.
	offerWithin time.Duration
	// begun: the command line is right, and the command has begun.
	begun bool
}

// Run executes a command line and returns the exit code.
func Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	a := &app{environ: environ, stderr: stderr}
	root := newRoot(a)
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		completion.RunE = help // and no other argument
		a.noteBegin(completion)
	}
	root.InitDefaultHelpCmd()
	if topics, _, err := root.Find([]string{"help"}); err == nil {
		topics.Args = aCommand
	}
	root.SetArgs(args)
	root.SetOut(screenOf(stdout, environ))
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	fmt.Fprintln(stderr, "latchkey:", printableLines(err.Error()))
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	if !a.begun { // Cobra has no type for its errors.
		fmt.Fprintln(stderr, "Run 'latchkey --help' for usage.")
		return ExitUsage
	}
	return ExitFailed
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "latchkey",
		Short: "Keeps users' integration tokens alive",
		Long: `Latchkey stores the tokens that a company gets from Mesh Link for its users,
refreshes them before they expire, and returns the current ones on request.

Exit codes: 0 success, 1 failure, 2 wrong usage or configuration, 3 token request refused.`,
		Version:       build.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVarP(&a.configPath, "config", "c", "", "YAML file with the configuration (default: the file named by LATCHKEY_CONFIG, if set)")
	root.AddCommand(a.runCommand(), a.configCommand(), a.tokenCommand(), a.deadLettersCommand(), a.grantsCommand(), a.verdictsCommand(), a.scheduleCommand(), a.usersCommand(), a.exportCommand(),
		a.eventsCommand(), a.auditCommand(), a.keysCommand(), a.importCommand(), a.benchCommand(), a.doctorCommand(), versionCommand())
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return checkFlags(cmd.Flags()) }
	root.SetFlagErrorFunc(flagError)
	completeWith(root, "config", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
	})
	noFiles(root)
	a.noteBegin(root)
	return root
}

// noteBegin has each command note that it begins: until then, every error is one of usage.
func (a *app) noteBegin(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.begun = true
			return run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		a.noteBegin(sub)
	}
}

func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// aCommand demands the words of a command as the arguments.
func aCommand(cmd *cobra.Command, args []string) error {
	if _, left, err := cmd.Root().Find(args); err != nil || len(left) > 0 {
		return fmt.Errorf("unknown command %q", strings.Join(args, " "))
	}
	return nil
}

// group returns a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: help,
	}
	cmd.AddCommand(commands...)
	return cmd
}

// load reads the configuration of a command that uses all of it.
func (a *app) load() (config.Config, error) {
	cfg, err := config.Load(a.configPath, a.environ)
	if err != nil {
		return cfg, &exitError{ExitUsage, err}
	}
	return cfg, nil
}

// loadSome reads the configuration of a command that uses some of it. missing, if not nil,
// lists the required values that were not given.
func (a *app) loadSome() (cfg config.Config, missing *config.Error, err error) {
	cfg, err = config.Load(a.configPath, a.environ)
	if errors.As(err, &missing) {
		err = missing.Needed()
	}
	if err != nil {
		return cfg, nil, &exitError{ExitUsage, err}
	}
	return cfg, missing, nil
}
