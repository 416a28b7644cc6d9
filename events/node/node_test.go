// Package node_test runs the tests of the client for Node.js.
package node_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

// TestNodeClient: its types are those of the schemas and of its code, and it does what it
// says at a NATS server. cmd/latchkey/worker tests it against a worker.
func TestNodeClient(t *testing.T) {
	if testing.Short() {
		t.Skip("installs packages of npm: not in short mode")
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("npm is not installed")
	}
	t.Parallel()
	url := enginestest.NATS(t).URL()
	dir := t.TempDir()
	for _, part := range []string{"schemas", "node/lib", "node/types", "node/test"} {
		require.NoError(t, os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join("..", part))))
	}
	for _, file := range []string{".npmrc", "package.json", "package-lock.json", "tsconfig.json", "generate.js"} {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "node", file), data, 0o600))
	}
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), npm, args...)
		cmd.Dir = filepath.Join(dir, "node")
		cmd.Env = append(os.Environ(), "NATS_URL="+url)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "npm %s:\n%s", strings.Join(args, " "), out)
		return string(out)
	}
	run("ci", "--prefer-offline")
	run("run", "check")
	require.Contains(t, run("test"), "fail 0")
}
