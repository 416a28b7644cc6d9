package meshsim_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/npmtest"
)

// TestNodeAPIClient holds the simulator against Mesh's own Node client and the
// types it publishes; contract/ is the Node project that does it.
func TestNodeAPIClient(t *testing.T) {
	npm := npmtest.New(t)
	b := newBench(t)
	dir := copyOf(t, "contract")
	npm(dir, nil, "ci")
	npm(dir, []string{"MESH_URL=" + b.url, "MESH_CLIENT_ID=" + clientID, "MESH_CLIENT_SECRET=" + clientSecret}, "test")
	require.NotEmpty(t, b.Ledger().Requests, "the client never called")
	require.Len(t, b.Ledger().Violations(), 1, "the one that the test commits on purpose")
}

// copyOf copies a Node project without what its tools leave behind.
func copyOf(t *testing.T, project string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, filepath.WalkDir(project, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); name == "node_modules" || name == "build" {
			return filepath.SkipDir
		}
		to := filepath.Join(dir, strings.TrimPrefix(path, project))
		if d.IsDir() {
			return os.MkdirAll(to, 0o700)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o600)
	}))
	return dir
}
