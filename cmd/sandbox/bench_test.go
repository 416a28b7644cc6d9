package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/bench"
)

// leeway is by how much a figure may miss its target here: the sizes are small
// and the machine is shared. Seconds are not looked at.
const leeway = 10

// TestBench takes every measure in a small form. The long form is "make bench".
func TestBench(t *testing.T) {
	if testing.Short() {
		t.Skip("starts engines and processes")
	}
	dir := t.TempDir()
	exe := filepath.Join(dir, "sandbox")
	out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	docs := filepath.Join(dir, "performance.md")
	require.NoError(t, os.WriteFile(docs, []byte("before\n<!-- figures: written by make bench -->\nold\n<!-- end of figures -->\nafter\n"), 0o600))
	small := []string{
		"bench", "--rounds", "1", "--users", "60", "--warm", "20", "--callers", "8", "--duration", "300ms", "--refreshes", "100", "--sealed", "20000",
		"--few", "20", "--many", "300", "--sample", "40", "--due-rate", "20", "--due-for", "1s", "--workers", "1,2", "--shared", "40",
	}
	before := leftovers(t)
	cmd := exec.Command(exe, append(small, "--json", "--docs", docs)...)
	var progress bytes.Buffer
	cmd.Stderr = &progress
	printed, err := cmd.Output()
	require.NoError(t, err, progress.String())
	t.Log(progress.String())
	var report bench.Report
	require.NoError(t, json.Unmarshal(printed, &report))
	require.Equal(t, before, leftovers(t), "something was left behind")

	written, err := os.ReadFile(docs)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(written), "before\n<!-- figures"), string(written))
	require.True(t, strings.HasSuffix(string(written), "<!-- end of figures -->\nafter\n"), string(written))
	require.NotContains(t, string(written), "former figures")
	targets := 0
	for _, row := range report.Rows {
		require.Contains(t, string(written), "| "+row.Figure+" |")
		require.NotEmpty(t, row.Values, row.Figure)
		if row.Target == nil {
			continue
		}
		targets++
		require.NotNil(t, row.Met, row.Figure)
		if row.Unit != "s" && row.Unit != "ms" {
			require.True(t, row.Within(leeway), row.String())
		}
	}
	require.Equal(t, 10, targets, "%v", report.Rows)
	require.Len(t, report.Rows, 12)
}

// leftovers are the folders of runs.
func leftovers(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(os.TempDir(), "latchkey-bench-*"))
	require.NoError(t, err)
	return found
}

func TestBenchRefusesWhatItCantMeasure(t *testing.T) {
	for _, args := range []string{"--rounds 0", "--users 0", "--few 10 --many 10", "--due-rate 0", "--only nothing"} {
		var said bytes.Buffer
		require.Equal(t, 1, run(context.Background(), append([]string{"bench"}, strings.Fields(args)...), io.Discard, &said), args)
		require.NotEmpty(t, said.String())
	}
}
