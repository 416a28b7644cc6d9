package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

var (
	// here is a command of a document that writes a file.
	here = regexp.MustCompile(`(?ms)^cat > ([a-z.]+) <<END\n.*?^END$`)
	// obtained is when tokens in a line were obtained.
	obtained = regexp.MustCompile(`"(?:obtainedAt|connectedAt)":"([^"]+)"`)
)

// TestPastedExamplesAreOfToday runs what the documents write into files with a shell, and
// takes it as a worker and the import would: tokens in it are still valid.
func TestPastedExamplesAreOfToday(t *testing.T) {
	dir := t.TempDir()
	written := func(page string) map[string][]byte {
		text, err := os.ReadFile(top + "docs/" + page)
		require.NoError(t, err)
		out := map[string][]byte{}
		for _, m := range here.FindAllStringSubmatch(string(text), -1) {
			sh := exec.CommandContext(t.Context(), "sh", "-c", m[0])
			sh.Dir = dir
			message, err := sh.CombinedOutput()
			require.NoError(t, err, "%s: %s", m[1], message)
			out[m[1]], err = os.ReadFile(filepath.Join(dir, m[1]))
			require.NoError(t, err)
		}
		return out
	}

	publishing := written("publishing.md")
	connected, err := events.DecodeConnected(publishing["connected.json"])
	require.NoError(t, err)
	require.Empty(t, connected.LeftOut)
	require.WithinDuration(t, time.Now(), connected.ConnectedAt, time.Minute)
	require.Greater(t, connected.Payload.AccessToken.ExpiresInSeconds.Duration(), time.Minute)
	disconnected, err := events.DecodeDisconnected(publishing["disconnected.json"])
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), disconnected.DisconnectedAt, time.Minute)

	importing := written("importing.md")
	require.Len(t, importing, 2)
	for file, content := range importing {
		for _, m := range obtained.FindAllSubmatch(content, -1) {
			at, err := time.Parse(time.RFC3339, string(m[1]))
			require.NoError(t, err)
			require.WithinDuration(t, time.Now(), at, time.Minute, file)
		}
		var stdout, stderr bytes.Buffer
		require.Zero(t, Run(t.Context(), []string{"import", filepath.Join(dir, file), "--dry-run"}, nil, &stdout, &stderr), "%s: %s%s", file, &stdout, &stderr)
	}
}
