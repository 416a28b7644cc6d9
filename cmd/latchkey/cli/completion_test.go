package cli

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// completed returns what a shell is offered behind a command line, and how it is told to go
// on.
func completed(t *testing.T, environ []string, args ...string) (values []string, directive cobra.ShellCompDirective) {
	t.Helper()
	var stdout bytes.Buffer
	require.Equal(t, ExitOK, Run(t.Context(), append([]string{"__complete"}, args...), environ, &stdout, io.Discard))
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	last := lines[len(lines)-1]
	_, err := fmt.Sscanf(last, ":%d", &directive)
	require.NoError(t, err, last)
	return lines[:len(lines)-1], directive
}

// TestOnlyFilesAreCompletedAsFiles: for every argument and flag of every command.
func TestOnlyFilesAreCompletedAsFiles(t *testing.T) {
	files := map[string]bool{"latchkey import": true, "latchkey import --state": true, "latchkey import --rejects": true, "--config": true}
	check := func(what string, args ...string) {
		t.Helper()
		_, directive := completed(t, faulty, args...)
		require.Equal(t, !files[what], directive&cobra.ShellCompDirectiveNoFileComp != 0, "%s: %d", what, directive)
	}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		words := strings.Fields(cmd.CommandPath())[1:]
		check(cmd.CommandPath(), append(words, "")...)
		if cmd.HasParent() && !cmd.HasSubCommands() {
			check("behind the arguments of "+cmd.CommandPath(), append(append(words, "one", "two"), "")...)
		}
		visit := func(name string) func(*pflag.Flag) {
			return func(f *pflag.Flag) {
				if f.Value.Type() != "bool" {
					check(name+"--"+f.Name, append(words, "--"+f.Name, "")...)
				}
			}
		}
		cmd.LocalNonPersistentFlags().VisitAll(visit(cmd.CommandPath() + " "))
		cmd.InheritedFlags().VisitAll(visit(""))
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&app{}))
	yaml, directive := completed(t, faulty, "run", "--config", "")
	require.Equal(t, []string{"yaml", "yml"}, yaml)
	require.Equal(t, cobra.ShellCompDirectiveFilterFileExt, directive)
}

func TestColumnsAreCompletedOneAfterTheOther(t *testing.T) {
	values, _ := completed(t, faulty, "grants", "list", "--columns", "")
	require.Subset(t, values, []string{"id", "user", "all"})
	values, directive := completed(t, faulty, "grants", "list", "--columns", "id,us")
	require.Contains(t, values, "id,user")
	require.NotContains(t, values, "id,id")
	require.NotZero(t, directive&cobra.ShellCompDirectiveNoSpace)
}

// TestCompletionDoesNotWaitForServers that take connections and say nothing.
func TestCompletionDoesNotWaitForServers(t *testing.T) {
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	a := &app{offerWithin: 50 * time.Millisecond, environ: append(unreachable[:5:5],
		"LATCHKEY_MONGODB_URI=mongodb://"+silent.Addr().String()+"/?directConnection=true", "LATCHKEY_MONGODB_TIMEOUT=1h", "LATCHKEY_WORKER_GRACE=3h", "LATCHKEY_REFRESH_LEASE=3h")}
	_, err = a.load()
	require.NoError(t, err)
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	stuck := make(chan struct{})
	defer close(stuck)
	for name, find := range map[string]offering{
		"a server":              offerGrants,
		"what heeds no context": func(*session, []string, string) ([]offered, error) { <-stuck; return nil, nil },
	} {
		values, directive := a.offer(find)(cmd, nil, "")
		require.Empty(t, values, name)
		require.Equal(t, cobra.ShellCompDirectiveNoFileComp, directive, name)
	}
}

// TestOnlyHarmlessIdsAreOffered: they come from outside, and shells would carry them out.
func TestOnlyHarmlessIdsAreOffered(t *testing.T) {
	a := &app{environ: unreachable}
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	values, _ := a.offer(func(*session, []string, string) ([]offered, error) {
		return []offered{{"alice@example.com", "a\x1b[2Jb\nc"}, {"$(reboot)", ""}, {"-rf", ""}, {"a b", ""}, {"a;b", ""}, {"a\tb", ""}, {"a'b", ""}, {"`id`", ""}, {"日本", ""}, {"", ""}, {"named", ""}}, nil
	})(cmd, []string{"named"}, "")
	require.Equal(t, []string{"alice@example.com\ta\uFFFD[2Jb\uFFFDc", "日本"}, values)
}
