// Package npmtest runs Node projects in tests.
package npmtest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// New returns a function that runs npm in a folder, with more variables, and returns what
// it printed. It skips the test in short mode, since npm installs packages, and where npm
// is missing.
func New(t testing.TB) (run func(dir string, variables []string, args ...string) string) {
	t.Helper()
	if testing.Short() {
		t.Skip("installs Node packages: not in short mode")
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("npm is not installed")
	}
	return func(dir string, variables []string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), npm, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), variables...)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "npm %s:\n%s", strings.Join(args, " "), out)
		return string(out)
	}
}
