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
		t.Skip("starts processes for about a minute")
	}
	exe := filepath.Join(t.TempDir(), "sandbox")
	out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	for name, o := range map[string]chaos.Options{
		"one broker": {Seed: 1, Duration: 30 * time.Second, Grants: 100, Workers: 2, Only: []string{
			"worker killed", "all workers killed", "worker stopped", "workers suspended", "database cut off", "database restarted",
			"database cut off, worker killed", "broker restarted", "broker wiped", "broker's disk full", "answers lost after rotation",
			"answers too late", "calls refused before rotation", "too many requests", "one institution down",
		}},
		"cluster": {Seed: 2, Duration: 15 * time.Second, Grants: 50, Workers: 2, Cluster: true, Only: []string{
			"worker killed", "database restarted", "broker node killed", "answers lost after rotation", "too many requests",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var report bytes.Buffer
			o.Out = &report
			err := chaos.Run(t.Context(), exe, o)
			t.Log(report.String())
			require.NoError(t, err)
		})
	}
}
