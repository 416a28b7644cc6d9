package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/sandbox/stack"
)

const (
	defaultDir = ".sandbox"
	// envFile holds what a shell needs to reach a running sandbox.
	envFile = "latchkey.env"
)

func envCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print what a shell needs for latchkey commands beside a running sandbox",
		Long: `Prints the variables that latchkey, the examples and the AWS SDK read, as a shell
exports them, and puts the latchkey that lies beside the sandbox on the PATH:

  eval "$(sandbox env)"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			script, err := os.ReadFile(filepath.Join(dir, envFile))
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("no sandbox is running on the folder %q", dir)
			}
			if err != nil {
				return fmt.Errorf("reading the sandbox's variables: %w", err)
			}
			_, err = cmd.OutOrStdout().Write(script)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", defaultDir, "folder of the running sandbox")
	return cmd
}

// envLine is the line with which a shell uses the sandbox of a folder.
func envLine(program, dir string) string {
	command := shellQuote(program) + " env"
	if dir != defaultDir {
		command += " --dir " + shellQuote(dir)
	}
	return `eval "$(` + command + `)"`
}

// writeEnv writes what reaches the stack into its folder, and variables of the worker: a command
// needs the same prefix as the worker. The admin server gets any free port, for a second
// worker. The examples read NATS_URL.
func writeEnv(dir string, s *stack.Stack, variables []string) (file string, err error) {
	var script strings.Builder
	for _, v := range slices.Concat(s.Environ(), variables, []string{"LATCHKEY_ADMIN_LISTEN=127.0.0.1:0"}) {
		name, value, _ := strings.Cut(v, "=")
		fmt.Fprintf(&script, "export %s=%s\n", name, shellQuote(value))
	}
	script.WriteString("export NATS_URL=\"$LATCHKEY_NATS_URL\"\n" + pathLine())
	file = filepath.Join(dir, envFile)
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		return "", fmt.Errorf("writing the sandbox's variables: %w", err)
	}
	return file, nil
}

// pathLine puts the latchkey in this program's folder on the PATH; it is empty where there
// is none.
func pathLine() string {
	program, err := os.Executable()
	if err != nil {
		return ""
	}
	dir := filepath.Dir(program)
	if _, err := exec.LookPath(filepath.Join(dir, "latchkey")); err != nil {
		return ""
	}
	return "export PATH=" + shellQuote(dir) + "\"${PATH:+:$PATH}\"\n"
}

// shellQuote gives a text as one word of a POSIX shell.
func shellQuote(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
