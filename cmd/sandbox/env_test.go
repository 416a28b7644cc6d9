package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/docs/commands"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
)

// besideSandbox are documented commands that only read, and fail where they don't
// reach the sandbox. All of the FAQ's are run too.
var besideSandbox = []string{"config check", "grants list", "keys status", "audit verify", "doctor"}

// TestEnv has a shell take what sandbox env prints, as the sandbox's first line says,
// and runs commands of the documents with what it then exports.
func TestEnv(t *testing.T) {
	t.Setenv("LATCHKEY_NATS_PREFIX", "")
	for _, v := range workerVariables() { // a developer's may send traces elsewhere
		if name, _, _ := strings.Cut(v, "="); sendsElsewhere(v) {
			t.Setenv(name, "")
			require.NoError(t, os.Unsetenv(name))
		}
	}
	dir := t.TempDir() + "/it's a folder"
	latchkey := besideThisProgram(t, "latchkey")
	besideThisProgram(t, "sandbox")
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := serve(ctx, options{dir: dir, scriptDir: dir, variables: append(workerVariables(), "LATCHKEY_ADMIN_LISTEN=")}, in)
		_ = in.Close()
		done <- err
	}()
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan(), "it ended: %v", ctx.Err())
	first := lines.Text()
	traces := make(chan string, 1)
	go func() {
		for lines.Scan() {
			if words := strings.Fields(lines.Text()); len(words) > 1 && words[0] == "traces" {
				traces <- words[1]
			}
		}
	}()
	require.Equal(t, envLine(os.Args[0], dir), first)

	var script bytes.Buffer
	require.Zero(t, run(ctx, []string{"env", "--dir", dir}, &script, io.Discard))
	// The shell finds this program by its name; a function stands for it.
	call := strings.Replace(first, shellQuote(os.Args[0])+" env", "sandbox env", 1)
	sh := exec.CommandContext(ctx, "sh", "-c", `sandbox() { [ "$3" = "$DIR" ] && cat; }; `+call+"; FOUND=$(command -v latchkey) env -0")
	sh.Env = []string{"PATH=" + os.Getenv("PATH"), "DIR=" + dir}
	sh.Stdin = &script
	exported, err := sh.Output()
	require.NoError(t, err)
	environ := strings.Split(strings.TrimRight(string(exported), "\x00"), "\x00")
	require.Contains(t, environ, "FOUND="+latchkey)
	at := slices.IndexFunc(environ, func(v string) bool { return strings.HasPrefix(v, "LATCHKEY_NATS_URL=") })
	require.NotEqual(t, -1, at)
	require.Contains(t, environ, strings.TrimPrefix(environ[at], "LATCHKEY_"), "the examples read it")

	found, err := commands.In("../../README.md", "../../docs/*.md")
	require.NoError(t, err)
	ran := map[string]bool{}
	for _, c := range found {
		line := strings.Join(c.Words[1:], " ")
		if c.Program() != "latchkey" || ran[line] || !slices.Contains(besideSandbox, line) && !strings.Contains(c.Where, "faq.md") {
			continue
		}
		ran[line] = true
		var stderr bytes.Buffer
		limited, cancel := context.WithTimeout(ctx, time.Minute)
		require.Zero(t, cli.Run(limited, c.Words[1:], environ, io.Discard, &stderr), "%s: %s: %s", c.Where, line, stderr.String())
		cancel()
	}
	require.Greater(t, len(ran), 6, "%v", ran)

	testPasted(t, dir, filepath.Dir(latchkey))

	// What the worker does is on the page of traces.
	nc, err := nats.Connect(strings.TrimPrefix(environ[at], "LATCHKEY_NATS_URL="))
	require.NoError(t, err)
	defer nc.Close()
	c, err := client.New(nc)
	require.NoError(t, err)
	require.NoError(t, c.PublishDisconnected(ctx, events.Disconnected{UserID: "nobody", Everything: true, DisconnectedAt: time.Now()}))
	page := enginestest.Receive(t, traces)
	require.Eventually(t, func() bool {
		res, err := http.Get(page)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return strings.Contains(string(body), events.IntegrationDisconnected)
	}, time.Minute, 100*time.Millisecond, "the worker sends its traces to the page")

	if _, err := exec.LookPath("curl"); err == nil {
		content, err := os.ReadFile("../../docs/sandbox.md")
		require.NoError(t, err)
		_, rest, found := strings.Cut(string(content), "\ncurl ")
		require.True(t, found)
		call, _, found := strings.Cut(rest, " |\n")
		require.True(t, found)
		curl := exec.CommandContext(ctx, "sh", "-c", "curl "+call)
		curl.Env = environ
		answer, err := curl.Output()
		require.NoError(t, err)
		require.Contains(t, string(answer), `"payload":{"accessToken"`)
		require.Contains(t, string(answer), `"accountName":"Trading"`)
	}

	stop()
	require.NoError(t, <-done)
	var stderr bytes.Buffer
	require.Equal(t, 1, run(t.Context(), []string{"env", "--dir", dir}, io.Discard, &stderr))
	require.Contains(t, stderr.String(), "no sandbox is running")
}

// besideThisProgram makes sure that a program of that name lies in this one's folder, as
// in bin.
func besideThisProgram(t *testing.T, name string) (path string) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	path = filepath.Join(filepath.Dir(self), name)
	err = os.Link(self, path)
	if errors.Is(err, fs.ErrExist) {
		return path
	}
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.Remove(path) })
	return path
}

func TestShellQuote(t *testing.T) {
	for _, text := range []string{"", "plain", "it's", `a "b" $c`, "two\nlines", "mongodb://u:p@h/?a=b&c"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+shellQuote(text)).Output()
		require.NoError(t, err)
		require.Equal(t, text, string(out))
	}
}
