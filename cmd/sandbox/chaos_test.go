package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/chaos"
)

// TestChaos plays a short form of the suite with real worker processes. The
// long form is "make chaos".
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes for some minutes")
	}
	exe := filepath.Join(t.TempDir(), "sandbox")
	out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	play := func(t *testing.T, o chaos.Options) {
		var report bytes.Buffer
		o.Out, o.Workers = &report, 2
		err := chaos.Run(t.Context(), exe, o)
		t.Log(report.String())
		require.NoError(t, err)
	}
	// Most of the time these wait, so they are played side by side.
	t.Run("failures", func(t *testing.T) {
		for name, o := range map[string]chaos.Options{
			"of workers, database and broker": {Seed: 1, Duration: 40 * time.Second, Grants: 100, Only: []string{
				"worker killed", "all workers killed", "worker stopped", "database cut off", "database restarted",
				"database cut off, worker killed", "broker restarted", "broker wiped", "broker's disk full", "answers lost after rotation",
				"answers too late", "calls refused before rotation", "too many requests", "one institution down",
			}},
			"of what workers rely on": {Seed: 2, Grants: 60, Lifetime: 16 * time.Second, Only: []string{
				"workers suspended", "broker refuses credentials", "KMS away", "KMS refuses", "STS away", "STS refuses",
			}},
			"of what they read": {Seed: 3, Grants: 60, Lifetime: 16 * time.Second, Only: []string{
				"HTTP/2 streams reset", "junk on every subject", "a page of stuck grants",
			}},
			"of a cluster": {Seed: 4, Grants: 50, Cluster: true, Only: []string{
				"worker killed", "broker node killed", "broker's leaders step down", "answers lost after rotation",
			}},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				play(t, o)
			})
		}
	})
	// Here latency is judged.
	t.Run("sick brokers", func(t *testing.T) {
		play(t, chaos.Options{Seed: 5, Grants: 60, Lifetime: 16 * time.Second, Only: []string{
			"one institution hangs", "one institution suspended", "one institution limits the rate",
		}})
	})
}
