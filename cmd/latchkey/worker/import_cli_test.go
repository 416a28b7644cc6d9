package worker_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
)

const commandVariable = "LATCHKEY_TEST_COMMAND"

// TestCommandProcess is not a test but the command line in a process of its
// own, which a test can feed and kill.
func TestCommandProcess(t *testing.T) {
	command := os.Getenv(commandVariable)
	if command == "" {
		t.Skip("is a process that other tests start")
	}
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt)
	defer stop()
	if code := cli.Run(ctx, strings.Split(command, "\n"), os.Environ(), os.Stdout, os.Stderr); code != 0 {
		os.Exit(code)
	}
}

// commandProcess is a running command line.
type commandProcess struct {
	*exec.Cmd
	stdin io.WriteCloser
	out   *enginestest.Text
}

func (o *onCall) process(args ...string) *commandProcess {
	o.t.Helper()
	p := &commandProcess{Cmd: exec.CommandContext(o.ctx, os.Args[0], "-test.run=^TestCommandProcess$"), out: &enginestest.Text{}}
	p.Env = append(append(os.Environ(), o.stack.Environ()...), append(o.settings(), commandVariable+"="+strings.Join(args, "\n"))...)
	p.Stdout, p.Stderr = p.out, p.out
	var err error
	p.stdin, err = p.StdinPipe()
	require.NoError(o.t, err)
	require.NoError(o.t, p.Start())
	o.t.Cleanup(func() { _ = p.Process.Kill() })
	return p
}

// importFile is an input for an import: what it holds and what must become of it.
type importFile struct {
	lines   []string
	ends    map[string]time.Time // of the access token, by user
	rejects []string             // the lines of the rejects file
}

const importCanary = "canary-0123456789abcdef"

func newImportFile(good int) importFile {
	f := importFile{ends: map[string]time.Time{}}
	obtained := time.Now().Add(-time.Hour).Truncate(time.Second).UTC()
	bad := []struct{ line, reason string }{
		{`{"userId":"x","broker":"` + importCanary + `"}`, `a field that is not known; names are case-sensitive`},
		{importCanary, `not well-formed JSON in UTF-8`},
		{
			`{"userId":"x","connectedAt":"2026-01-01T00:00:00Z","payload":{"accessToken":{"brokerType":"` + importCanary + `","accountTokens":[]}}}`,
			`no token: there is nothing to keep`,
		},
		{`{"userId":"x","brokerType":"b","accountId":"a","accessToken":"` + importCanary + `","expiresInSeconds":60}`, `expiresInSeconds: counts from obtainedAt, which is missing`},
	}
	for i := range good {
		if i%(good/len(bad)) == good/len(bad)/2 {
			b := bad[len(f.rejects)]
			f.lines = append(f.lines, b.line)
			f.rejects = append(f.rejects, fmt.Sprintf(`{"line":%d,"reason":%q}`, len(f.lines), b.reason))
		}
		user := fmt.Sprint("import-", i)
		end := obtained.Add(time.Duration(48*3600+i) * time.Second)
		access, refresh := fmt.Sprint(importCanary, "-access-", i), fmt.Sprint(importCanary, "-refresh-", i)
		f.ends[user] = end
		if i%2 == 0 {
			f.lines = append(f.lines, fmt.Sprintf(`{"userId":%q,"brokerType":"coinbase","accountId":"a","accessToken":%q,"refreshToken":%q,"expiresAt":%q,"obtainedAt":%q}`,
				user, access, refresh, end.Format(time.RFC3339), obtained.Format(time.RFC3339)))
			continue
		}
		f.lines = append(f.lines, fmt.Sprintf(`{"userId":%q,"connectedAt":%q,"payload":{"accessToken":{"brokerType":"coinbase","expiresInSeconds":%d,"accountTokens":[{"account":{"accountId":"a"},"accessToken":%q,"refreshToken":%q}]}}}`,
			user, obtained.Format(time.RFC3339), 48*3600+i, access, refresh))
	}
	return f
}

func (f importFile) text(from, to int) string { return strings.Join(f.lines[from:to], "\n") + "\n" }

func TestManyGrantsAreImportedByACommandThatIsKilledAndInterrupted(t *testing.T) {
	t.Parallel()
	good, postgres := 1000, ""
	if pg := enginestest.IfPostgres(t); pg != nil {
		postgres = pg.URL()
	}
	// On SQLite the embedded database reads a whole collection to find a user.
	if testing.Short() || enginestest.RaceDetector || postgres == "" {
		good = 200
	}
	h := startWith(t, stack.Options{PostgresURL: postgres})
	o := &onCall{harness: h}
	w := h.worker("LATCHKEY_RECONCILE_INTERVAL=1m", "LATCHKEY_CONNECT_CONCURRENCY=8")
	input := newImportFile(good)
	part := func(tenths int) int { return len(input.lines) * tenths / 10 }
	dir := t.TempDir()
	file, stateFile, rejectsFile := filepath.Join(dir, "tokens.ndjson"), filepath.Join(dir, "state"), filepath.Join(dir, "rejects")
	require.NoError(t, os.WriteFile(file, []byte(input.text(0, len(input.lines))), 0o600))
	state := func() (s struct{ Lines, Offset int64 }) {
		b, err := os.ReadFile(stateFile)
		if err == nil {
			require.NoError(t, json.Unmarshal(b, &s))
		}
		return s
	}
	args := []string{"--state", stateFile, "--rejects", rejectsFile}
	code, stdout, _ := o.run("import", file, "--dry-run")
	require.Equal(t, cli.ExitFailed, code)
	require.Regexp(t, `valid +`+fmt.Sprint(good)+`\n`, stdout)

	killed := o.process(append([]string{"import", "-"}, args...)...)
	_, err := io.WriteString(killed.stdin, input.text(0, part(4)))
	require.NoError(t, err)
	h.eventually(func() bool { return state().Lines == int64(part(4)) }, "lines done with")
	_, err = io.WriteString(killed.stdin, input.text(part(4), part(5))+`{"userId":"cut`)
	require.NoError(t, err)
	require.NoError(t, killed.Process.Kill())
	require.Error(t, killed.Wait())

	interrupted := o.process(append([]string{"import", "-"}, args...)...)
	_, err = io.WriteString(interrupted.stdin, input.text(0, part(7)))
	require.NoError(t, err)
	h.eventually(func() bool { return state().Lines == int64(part(7)) }, "lines done with")
	require.NoError(t, interrupted.Process.Signal(os.Interrupt))
	require.Error(t, interrupted.Wait())
	require.Contains(t, interrupted.out.String(), fmt.Sprint("interrupted after line ", part(7)))

	// ctrl-C ends it too while it waits for lines that it has imported.
	waiting := o.process(append([]string{"import", "-"}, args...)...)
	_, err = io.WriteString(waiting.stdin, strings.Repeat(" ", 1<<17)) // more than a pipe holds: it reads
	require.NoError(t, err)
	require.NoError(t, waiting.Process.Signal(os.Interrupt))
	ended := make(chan error, 1)
	go func() { ended <- waiting.Wait() }()
	h.eventually(func() bool { return len(ended) > 0 }, "it still reads")
	require.Error(t, <-ended)
	require.Contains(t, waiting.out.String(), fmt.Sprint("interrupted after line ", part(7)))

	for range 2 { // the second time there is nothing left to do
		code, stdout, stderr := o.run(append([]string{"import", file, "--output", "json"}, args...)...)
		require.Equal(t, cli.ExitFailed, code)
		require.Contains(t, stderr, fmt.Sprintf("4 of %d lines were rejected", good+4))
		var report map[string]any
		require.NoError(t, json.Unmarshal([]byte(stdout), &report))
		require.EqualValues(t, good, report["accepted"])
		require.EqualValues(t, 4, report["rejected"])
		require.EqualValues(t, good+4, report["lines"])
	}
	got, err := os.ReadFile(rejectsFile)
	require.NoError(t, err)
	require.Equal(t, strings.Join(input.rejects, "\n")+"\n", string(got))

	require.NoError(t, os.WriteFile(file, []byte(" "+input.text(0, len(input.lines))), 0o600))
	require.NoError(t, os.Chmod(file, 0o604))
	_, _, stderr := o.run(append([]string{"import", file}, args...)...)
	require.Contains(t, stderr, "the input differs from the one recorded in the state file")
	require.Contains(t, stderr, "every user of this machine can read")

	h.nth(events.TokenStored, fmt.Sprint("import-", good-1), 1)
	h.handled()
	for user, end := range input.ends {
		stored := h.event(events.TokenStored, user)
		require.True(t, end.Equal(*stored.Data.ExpiresAt), "%s: %s, not %s", user, stored.Data.ExpiresAt, end)
		require.Len(t, h.eventsOf("", user), 1, user)
		require.Len(t, h.grants(user), 1)
	}
	require.Zero(t, w.metric("latchkey_dead_letters_total"))
	saved, err := os.ReadFile(stateFile)
	require.NoError(t, err)
	for _, shown := range []string{string(saved), string(got), o.shown.String(), killed.out.String(), interrupted.out.String(), waiting.out.String()} {
		require.NotContains(t, shown, importCanary)
	}
}
