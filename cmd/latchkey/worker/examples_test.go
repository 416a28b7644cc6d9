package worker_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// run runs a command of an example against the installation.
func (h *harness) run(dir, stdin string, args ...string) (stdout string) {
	h.t.Helper()
	cmd := exec.CommandContext(h.ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "NATS_URL="+h.nc.ConnectedUrl())
	out, err := cmd.CombinedOutput()
	require.NoError(h.t, err, "%s:\n%s", strings.Join(args, " "), out)
	return string(out)
}

// examplesOnly starts an installation that takes sealed connects only.
func examplesOnly(t *testing.T) *harness {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and installs examples: not in short mode")
	}
	h := start(t, nil)
	if h.subjects.Prefix != "" {
		t.Skip("the examples know no prefix")
	}
	h.worker("LATCHKEY_CONNECT_REQUIRE_SEALED=true")
	return h
}

func TestGoExample(t *testing.T) {
	t.Parallel()
	h := examplesOnly(t)
	c := h.issue("coinbase", "a")
	out := h.run(examples, c.Payload.Reveal(), "go", "run", "./go-publisher", "go user", time.Now().UTC().Format(time.RFC3339))
	require.Contains(t, out, "stored as 1")
	h.event(events.TokenStored, "go user")
	require.Equal(t, c.Accounts[0].AccessToken.Reveal(), h.get(events.TokenRequest{UserID: "go user"}).AccessTokens[0].AccessToken.Reveal())
}

func TestNodeExample(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	h := examplesOnly(t)
	dir := filepath.Join(t.TempDir(), "node-publisher")
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(examples, "node-publisher"))))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "node_modules"))) // what somebody tried out there
	h.run(dir, "", "npm", "ci")
	c := h.issue("coinbase", "a")
	token := c.Accounts[0].AccessToken.Reveal()
	out := h.run(dir, c.Payload.Reveal(), "node", "publish.js", "node user", time.Now().UTC().Format(time.RFC3339))
	require.Contains(t, out, "stored as 1")
	h.event(events.TokenStored, "node user")
	require.Equal(t, token, h.get(events.TokenRequest{UserID: "node user"}).AccessTokens[0].AccessToken.Reveal())

	out = h.run(dir, "", "node", "tokens.js", "node user")
	require.Contains(t, out, "a at ")
	require.Contains(t, out, "a token of ")
	require.NotContains(t, out, token)
}
