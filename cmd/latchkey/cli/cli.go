// Package cli is the command line of latchkey.
package cli

//go:generate go test . -run TestReference -update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/latchkey/latchkey/cmd/latchkey/build"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
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
}

// Run executes a command line and returns the exit code.
func Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root := newRoot(&app{environ: environ, stderr: stderr})
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	fmt.Fprintln(stderr, "latchkey:", err)
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	// Cobra has no type for these errors.
	if strings.HasPrefix(err.Error(), "unknown command") || strings.Contains(err.Error(), "arg(s)") {
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
	root.AddCommand(a.runCommand(), a.configCommand(), a.tokenCommand(), a.deadLettersCommand(), a.grantsCommand(), a.verdictsCommand(), a.scheduleCommand(), a.usersCommand(),
		a.eventsCommand(), a.auditCommand(), a.keysCommand(), a.importCommand(), a.benchCommand(), a.doctorCommand(), versionCommand())
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return refuseEmptyFlags(cmd.Flags()) }
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{ExitUsage, err} })
	return root
}

// refuseEmptyFlags refuses empty text flags. As a rule a shell variable was not set,
// and the command would cover more than the user meant.
func refuseEmptyFlags(flags *pflag.FlagSet) error {
	var err error
	flags.Visit(func(f *pflag.Flag) {
		if f.Value.Type() == "string" && f.Value.String() == "" && err == nil {
			err = usage("--%s: empty; leave the flag out or give it a value", f.Name)
		}
	})
	return err
}

// checkUser checks the value of --user, if there is one.
func checkUser(user string) error {
	if user == "" {
		return nil
	}
	if err := events.CheckUserID(user); err != nil {
		return usage("--user: %w", err)
	}
	return nil
}

// group returns a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

func (a *app) load() (config.Config, error) {
	cfg, err := config.Load(a.configPath, a.environ)
	if err != nil {
		return cfg, &exitError{ExitUsage, err}
	}
	return cfg, nil
}
