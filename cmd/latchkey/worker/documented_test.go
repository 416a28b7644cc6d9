package worker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/docs/commands"
	"github.com/latchkey/latchkey/events"
)

// harmless are the commands that only read and end by themselves.
var harmless = []string{"config print", "config check", "grants list", "deadletters list", "keys status", "keys prune --dry-run", "audit list", "audit verify", "audit heads", "version", "doctor", "completion"}

// TestDocumentedCommandsRun runs each line of the documents that changes nothing.
func TestDocumentedCommandsRun(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"coinbase": {AccessLifetime: time.Hour, RefreshLifetime: life}})
	h.worker()
	o := &onCall{harness: h}
	h.connectFor("alice")
	h.connectFor("bob")
	found, err := commands.In("../../../README.md", "../../../docs/*.md")
	require.NoError(t, err)
	ran := map[string]bool{}
	for _, c := range found {
		line := strings.Join(c.Words[1:], " ")
		if c.Program() != "latchkey" || ran[line] || !slices.ContainsFunc(harmless, func(h string) bool { return strings.HasPrefix(line, h) }) {
			continue
		}
		ran[line] = true
		args := c.Words[1:]
		if i := slices.Index(args, "-c"); i >= 0 { // the environment configures
			args = slices.Concat(args[:i], args[i+2:])
		}
		code, _, stderr := o.run(args...)
		require.Zero(t, code, "%s: %s: %s", c.Where, line, stderr)
	}
	require.Greater(t, len(ran), 15, "%v", ran)

	_, page, more := o.run("grants", "list", "--limit", "1", "--broker", "coinbase")
	require.Len(t, strings.Split(strings.TrimSpace(page), "\n"), 2)
	_, after, _ := strings.Cut(strings.TrimSpace(more), "--after ")
	rest := o.ok("grants", "list", "--broker", "COINbase", "--after", after)
	require.Len(t, strings.Split(strings.TrimSpace(rest), "\n"), 2)
	require.NotContains(t, rest, after)
	require.Contains(t, o.ok("grants", "list", "--user", "bob", "--state", "active", "--due-within", "1h"), "bob")
}

// TestShellsAreOfferedIds, of what the servers hold.
func TestShellsAreOfferedIds(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	o := &onCall{harness: h}
	h.connectAged("alice", fresh, spec("coinbase"), "account-1")
	h.connectAged("alan", fresh, spec("kraken"), "k")
	grant := h.event(events.TokenStored, "alice").Data.GrantID
	h.event(events.TokenStored, "alan")
	h.publish(h.subjects.Connected(), "junk")
	h.deadLetters(1)
	letter := o.letters()[0].ID
	offered := func(words ...string) (values []string) {
		t.Helper()
		_, stdout, _ := o.run(append([]string{"__complete"}, words...)...)
		for line := range strings.Lines(stdout) {
			if value, _, _ := strings.Cut(strings.TrimSpace(line), "\t"); !strings.HasPrefix(value, ":") {
				values = append(values, value)
			}
		}
		return values
	}
	for words, want := range map[string][]string{
		"token get ":                         {"alan", "alice"},
		"users erase ali":                    {"alice"},
		"token get alice ":                   nil,
		"token get alice --account ":         {"account-1"},
		"token get alice --broker c":         {"coinbase"},
		"events tail --user al":              {"alan", "alice"},
		"grants list --broker ":              {"coinbase", "kraken"},
		"grants show " + grant[:8]:           {grant},
		"grants refresh " + grant[:8]:        {grant},
		"deadletters show ":                  {letter},
		"deadletters drop ":                  {letter},
		"deadletters replay " + letter + " ": nil,
		"verdicts hold ":                     {"coinbase", "kraken"},
	} {
		require.Equal(t, want, offered(strings.Split(words, " ")...), words)
	}
}
