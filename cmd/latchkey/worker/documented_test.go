package worker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/docs/commands"
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
