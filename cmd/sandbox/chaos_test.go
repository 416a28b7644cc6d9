package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestChaos plays a short form of the suite with real worker processes. The
// long form is "make chaos". The suite runs in a process of its own, too: the race
// detector would make the embedded engines too slow.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes for some minutes")
	}
	exe := filepath.Join(t.TempDir(), "sandbox")
	out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	play := func(t *testing.T, arguments string, scenes ...string) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		args := append(strings.Fields("chaos --workers 2 --duration 0 --patience 5 "+arguments), "--only", strings.Join(scenes, ","))
		cmd := exec.CommandContext(ctx, exe, args...)
		cmd.Env = append(os.Environ(), "GOGC=300")                            // the embedded engines make much garbage
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it stops its workers
		cmd.WaitDelay = time.Minute
		report, err := cmd.CombinedOutput()
		t.Log(string(report))
		require.NoError(t, err)
	}
	// Most of the time these wait, so they are played side by side. Tokens live long
	// enough for a slow machine to keep up.
	t.Run("failures", func(t *testing.T) {
		for name, run := range map[string]struct {
			arguments string
			scenes    []string
		}{
			"of workers, database and broker": {"--seed 1 --grants 40 --lifetime 60s", []string{
				"worker killed", "all workers killed", "worker stopped", "database cut off", "database restarted",
				"database cut off and worker killed", "broker restarted", "broker wiped", "broker's disk full", "answers lost after rotation",
				"answers too late", "calls refused before rotation", "too many requests", "one institution down", "institutions speak dialects",
			}},
			"of what workers rely on": {"--seed 2 --grants 40 --lifetime 60s", []string{
				"workers suspended", "broker refuses credentials", "KMS away", "KMS refuses", "STS away", "STS refuses",
			}},
			"of what they read": {"--seed 3 --grants 40 --lifetime 60s", []string{
				"HTTP/2 streams reset", "junk on every subject", "a page of stuck grants", "users leave", "everybody is refused",
			}},
			"of a cluster": {"--seed 4 --grants 40 --lifetime 60s --cluster", []string{
				"worker killed", "broker node killed", "broker's leaders step down", "answers lost after rotation",
			}},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				play(t, run.arguments, run.scenes...)
			})
		}
	})
	// Here latency is judged.
	t.Run("sick brokers", func(t *testing.T) {
		play(t, "--seed 5 --grants 30 --lifetime 20s", "one institution hangs", "one institution suspended", "one institution limits the rate")
	})
}
