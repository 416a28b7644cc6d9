package operator

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhatIsEmbeddedIsThePackage: the chart library in assets/vendor is that of
// the pinned npm package, to the byte.
func TestWhatIsEmbeddedIsThePackage(t *testing.T) {
	if testing.Short() {
		t.Skip("installs Node packages: not in short mode")
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("npm is not installed")
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc"} {
		content, err := os.ReadFile(filepath.Join("npm", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	cmd := exec.CommandContext(t.Context(), npm, "ci")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	for name, original := range map[string]string{
		"uPlot.iife.min.js": "dist/uPlot.iife.min.js", "uPlot.min.css": "dist/uPlot.min.css", "uPlot.LICENSE": "LICENSE",
	} {
		want, err := os.ReadFile(filepath.Join(dir, "node_modules", "uplot", original))
		require.NoError(t, err)
		got, err := embedded.ReadFile("assets/vendor/" + name)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), name)
	}
}
