package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers"
)

// notForOperators are the commands for which the operator's role is not enough.
var notForOperators = []string{"bench", "doctor", "run"}

// alsoFor are commands that other roles are meant for too.
var alsoFor = map[string][]string{
	"import":    {"publisher"},
	"token get": {"reader"},
	"doctor":    {"worker"},
}

// documented returns the commands of the reference.
func documented(t *testing.T) (names []string) {
	t.Helper()
	pages, err := filepath.Glob("../../../docs/cli-*.md")
	require.NoError(t, err)
	for _, page := range pages {
		content, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, found := range regexp.MustCompile(`(?m)^## latchkey (.+)$`).FindAllStringSubmatch(string(content), -1) {
			names = append(names, found[1])
		}
	}
	require.Greater(t, len(names), 20)
	return names
}

// everyCommandUnderEveryRole runs each command of the reference as each role: what the role
// may do works, and everything else ends with the permission that is missing.
func (c *callers) everyCommandUnderEveryRole() {
	t := c.t
	c.connectAged("gus", fresh, spec("coinbase"), "gus")
	fault, err := c.stack.Mesh.Inject(meshsim.Fault{BrokerType: "gemini", Action: meshsim.Failed("no")})
	require.NoError(t, err)
	c.connectAged("hal", over, spec("gemini"), "hal")
	grant := c.event(events.TokenStored, "gus").Data.GrantID
	expired := c.event(events.TokenExpired, "hal").Data.GrantID
	c.stack.Mesh.ClearFaults(fault...)
	for range 3 {
		c.publish("integration.connected", `{"userId":"mallory"}`)
	}
	var letters []handlers.DeadLetter
	c.eventually(func() bool {
		require.NoError(t, json.Unmarshal([]byte(c.operator("deadletters", "list", "-o", "json")), &letters))
		return len(letters) == 3
	}, "no dead letters")
	tokens := filepath.Join(c.dir, "tokens.ndjson")
	line := `{"userId":"ida","connectedAt":"` + time.Now().UTC().Format(time.RFC3339) + `","payload":` + c.issue("coinbase", "ida").Payload.Reveal() + "}\n"
	require.NoError(t, os.WriteFile(tokens, []byte(line), 0o600))

	arguments := map[string][]string{
		"audit heads": {}, "audit list": {"--since", "1h"}, "audit verify": {},
		"bench": {"--users", "1", "--rounds", "1", "--duration", "1ms"}, "config check": {}, "config print": {},
		"deadletters list": {}, "deadletters show": {"--body", letters[0].ID}, "deadletters replay": {letters[1].ID}, "deadletters drop": {"--yes", letters[2].ID},
		"doctor": {}, "export": {"--user", "gus"}, "events tail": {"--follow=false", "--since", "1h"},
		"grants list": {}, "grants refresh": {grant}, "grants revive": {expired}, "grants show": {grant},
		"import": {tokens}, "keys prune": {"--dry-run"}, "keys reseal": {"--patience", "1s"}, "keys rewrap": {}, "keys status": {"--keys"},
		"run": {}, "schedule show": {"--within", "1000h"}, "token get": {"alice"}, "users erase": {"alice", "--yes", "--events"},
		"verdicts hold": {"kraken"}, "verdicts list": {}, "verdicts release": {"kraken"}, "version": {},
	}
	names := documented(t)
	slices.SortStableFunc(names, func(a, b string) int { return strings.Compare(last(a), last(b)) })
	for _, role := range slices.Concat(slices.DeleteFunc(slices.Clone(roles), func(r string) bool { return r == "operator" }), []string{"operator"}) {
		for _, name := range names {
			args, known := arguments[name]
			require.True(t, known, "name arguments for latchkey %s", name)
			if role == "worker" && slices.Contains([]string{"run", "grants revive", "keys reseal", "users erase", "deadletters replay", "deadletters drop"}, name) {
				continue // would do it: a worker runs, and does all of this
			}
			code, told := c.runAs(role, append(strings.Fields(name), args...)...)
			switch {
			case role == "operator" && !slices.Contains(notForOperators, name), slices.Contains(alsoFor[name], role):
				require.Equal(t, cli.ExitOK, code, "%s: %s: %s", role, name, told)
			case code == cli.ExitOK: // it needs no more than the role has
			default:
				require.Equal(t, cli.ExitFailed, code, "%s: %s: %s", role, name, told)
				require.Regexp(t, `NATS does not permit the (nkey U\w+|user of nats.creds_file) to (publish|subscribe) to "[^"]+" \((in deploy/nats may: |no role)`, told, "%s: %s", role, name)
				require.NotContains(t, told, "deadline", "%s: %s", role, name)
			}
		}
	}
}

// last has a command that removes something come after those that need it.
func last(name string) string {
	if name == "users erase" {
		return "~"
	}
	return name
}

// runAs runs a command line as a role, and returns all that it told.
func (c *callers) runAs(role string, args ...string) (code int, told string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	var out bytes.Buffer
	code = cli.Run(ctx, args, append(c.stack.Environ(), c.settings(c.settingsOf(role)...)...), &out, &out)
	return code, out.String()
}
