package operator

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/npmtest"
)

// TestWhatIsEmbeddedIsThePackage: the chart library in assets/vendor is that of
// the pinned npm package, to the byte.
func TestWhatIsEmbeddedIsThePackage(t *testing.T) {
	npm := npmtest.New(t)
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc"} {
		content, err := os.ReadFile(filepath.Join("npm", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	npm(dir, nil, "ci")
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
