package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/bench"
)

// TestBench takes every measure in a small form. The long form is "make bench".
func TestBench(t *testing.T) {
	if testing.Short() {
		t.Skip("starts engines and processes")
	}
	exe := filepath.Join(t.TempDir(), "sandbox")
	out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	for name, test := range map[string]func(*testing.T, string){"engines": testBench, "costs": testCosts, "scale": testScale, "interrupted": testInterrupted} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait for most of their time
			test(t, exe)
		})
	}
}

// testBench takes all that a run without --only takes, and sees each row in the document. It sees the home-made service
// there, or a row that says why not.
func testBench(t *testing.T, exe string) {
	docs := filepath.Join(t.TempDir(), "performance.md")
	require.NoError(t, os.WriteFile(docs, []byte("before\n<!-- figures: written by make bench -->\nformer figures\n<!-- end of figures -->\nafter\n"), 0o600))
	report := benchReport(
		t, exe, "--rounds", "1", "--users", "60", "--warm", "20", "--callers", "8", "--duration", "300ms", "--refreshes", "100", "--sealed", "20000",
		"--few", "20", "--many", "300", "--sample", "40", "--due-rate", "20", "--due-for", "1s", "--workers", "1,2", "--shared", "40",
		"--burst", "20", "--burst-for", "500ms", "--cron", "1s", "--killed", "20", "--docs", docs,
	)
	written, err := os.ReadFile(docs)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(written), "before\n<!-- figures"), string(written))
	require.True(t, strings.HasSuffix(string(written), "<!-- end of figures -->\nafter\n"), string(written))
	require.NotContains(t, string(written), "former figures")
	targets, homemade := 0, 0
	for _, row := range report.Rows {
		require.Contains(t, string(written), "| "+row.Figure+" |")
		if row.Figure == "home-made service" {
			require.NotEqual(t, "FerretDB on PostgreSQL", report.Database)
			require.Contains(t, string(written), "| not measured: no PostgreSQL")
			homemade = len(homemadeFigures)
			continue
		}
		require.NotEmpty(t, row.Values, row.Figure)
		if slices.Contains(homemadeFigures, row.Figure) {
			homemade++
			require.Equal(t, strings.HasPrefix(row.Figure, "CPU time"), len(row.Baseline) == 0, row.Figure)
		}
		if row.Target == nil || strings.HasPrefix(row.Figure, "lateness of a refresh") { // has one only where the machine keeps up
			continue
		}
		targets++
		require.NotNil(t, row.Met, row.Figure)
		if row.Figure == "calls to KMS" { // the others are of a shared machine and too small
			require.True(t, *row.Met, row.String())
		}
	}
	require.Equal(t, 13, targets, "%v", report.Rows)
	require.Equal(t, len(homemadeFigures), homemade, "%v", report.Rows)
	require.Contains(t, []int{16 + 1, 16 + len(homemadeFigures)}, len(report.Rows))
}

var homemadeFigures = []string{
	"reads, 1 at once, to a home-made service", "reads, 1 at once, to an echo", "CPU time of a read, 1 at once",
	"reads, 8 at once, to a home-made service", "reads, 8 at once, to an echo", "CPU time of a read, 8 at once",
	"lateness of 20 grants due within 500ms, 99th percentile", "refresh tokens presented again after a kill",
}

// testScale measures one installation with few and many partitions, and how its schedules are made again.
func testScale(t *testing.T, exe string) {
	report := benchReport(
		t, exe, "--sqlite", "--only", "installation,reconciliation", "--rounds", "1", "--refreshes", "100", "--partitions", "1,3",
		"--concurrency", "4", "--latency", "5ms", "--workers", "1,2", "--scheduled", "1200",
	)
	require.Len(t, report.Rows, 2*5+4+2*6)
	for _, row := range report.Rows {
		require.NotEmpty(t, row.Values, row.Figure)
		if !strings.HasPrefix(row.Figure, "scheduled again after") {
			require.Positive(t, row.Values[0], row.Figure)
		}
	}
}

// testCosts counts what the page says that a piece of work costs.
func testCosts(t *testing.T, exe string) {
	page, err := os.ReadFile("../../docs/costs.md")
	require.NoError(t, err)
	said, work := map[string]float64{}, []string(nil)
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case len(cells) < 5:
		case cells[0] == "":
			work = cells
		default:
			for i := 1; i < len(cells); i++ {
				if n, err := strconv.ParseFloat(cells[i], 64); err == nil {
					said[cells[0]+", "+work[i]] = n
				}
			}
		}
	}
	report := benchReport(t, exe, "--sqlite", "--only", "costs", "--refreshes", "200", "--callers", "8")
	require.Len(t, report.Rows, len(said), "%v", said)
	for _, row := range report.Rows {
		require.Contains(t, said, row.Figure)
		n, counted := said[row.Figure], row.Values[0]
		least := 0.5 // what goes on beside the work counts too, and is more where that takes long
		for what, its := range map[string]float64{"KMS": 0.05, "MongoDB": 0.2, "NATS KB": 0.25} {
			if strings.HasPrefix(row.Figure, what) {
				least = its
			}
		}
		tolerance := max(n/4, least)
		require.LessOrEqual(t, counted, n+tolerance, row.Figure)
		if !strings.HasPrefix(row.Figure, "MongoDB commands") { // of which there are fewer the more is done at once
			require.GreaterOrEqual(t, counted, n-tolerance, row.Figure)
		}
	}
}

// benchReport runs a bench and returns its report. It must leave no file behind.
func benchReport(t *testing.T, exe string, args ...string) (report bench.Report) {
	t.Helper()
	cmd, left := benchProcess(t, exe, append([]string{"bench", "--json"}, args...)...)
	var progress bytes.Buffer
	cmd.Stderr = &progress
	printed, err := cmd.Output()
	require.NoError(t, err, progress.String())
	t.Log(progress.String())
	require.NoError(t, json.Unmarshal(printed, &report))
	require.Empty(t, left())
	return report
}

// benchProcess returns a command that keeps all files in a folder of its own, and
// what tells which files are left there.
func benchProcess(t *testing.T, exe string, args ...string) (cmd *exec.Cmd, left func() []string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "latchkey-bench-test-") //nolint:usetesting // PostgreSQL may run as a user to whom t.TempDir is closed
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	cmd = exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	return cmd, func() []string {
		found, err := filepath.Glob(filepath.Join(dir, "*"))
		require.NoError(t, err)
		return found
	}
}

// testInterrupted ends runs in the middle, as ctrl-C does. Each removes what it made while its NATS still runs.
func testInterrupted(t *testing.T, exe string) {
	for only, args := range map[string][]string{"refreshes": nil, "installation": {"--sqlite", "--workers", "1", "--partitions", "1"}} {
		t.Run(only, func(t *testing.T) {
			t.Parallel()
			interrupt(t, exe, append([]string{"--only", only}, args...)...)
		})
	}
}

func interrupt(t *testing.T, exe string, args ...string) {
	t.Helper()
	cmd, left := benchProcess(t, exe, append([]string{"bench", "--refreshes", "20", "--rounds", "100000"}, args...)...)
	progress, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(progress)
	for lines.Scan() && !strings.Contains(lines.Text(), "round 2") {
	}
	require.NotEmpty(t, left())
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	// Without NATS it would wait for two minutes, until its connection is given up.
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_, err = io.Copy(io.Discard, progress)
	require.NoError(t, err)
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, exitInterrupted, exit.ExitCode())
	require.Empty(t, left())
}

func TestBenchRefusesWhatItCantMeasure(t *testing.T) {
	for _, args := range []string{"--rounds 0", "--users 0", "--few 10 --many 10", "--due-rate 0", "--scheduled 0", "--partitions 0", "--only nothing"} {
		var said bytes.Buffer
		require.Equal(t, 1, run(context.Background(), append([]string{"bench"}, strings.Fields(args)...), io.Discard, &said), args)
		require.NotEmpty(t, said.String())
	}
}
