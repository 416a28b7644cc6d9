package bench

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJudgement(t *testing.T) {
	lower := Row{Values: []float64{30, 10, 20}, Baseline: []float64{40, 40, 40}, Target: new(AtLeast(0.8))}
	upper := Row{Values: []float64{4}, Target: new(AtMost(1))}
	for _, row := range []*Row{&lower, &upper} {
		row.judge()
		require.False(t, *row.Met)
	}
	require.Equal(t, 0.5, lower.Ratio)
	require.Contains(t, lower.cells(), "0.25…0.75")
	require.Contains(t, lower.cells(), "missed")
	lower.Target = new(AtLeast(0.5))
	lower.judge()
	require.True(t, *lower.Met)
	require.Contains(t, lower.cells(), "≥ 0.5")
	none := Row{Values: []float64{1, 2}}
	none.judge()
	require.Nil(t, none.Met)
	unmeasured := Row{Figure: "a service", Method: "not measured: it is not installed"}
	unmeasured.judge()

	var table bytes.Buffer
	require.NoError(t, Report{Rows: []Row{lower, none, unmeasured}, Database: "a database"}.Table(&table))
	require.Contains(t, table.String(), "a database")
	require.Contains(t, table.String(), "FIGURE")
	require.Regexp(t, `a service +not measured: it is not installed`, table.String())
}

func TestQuantile(t *testing.T) {
	bounds := []float64{1, 2, 4}
	require.Equal(t, 1.0, quantile(0.5, bounds, []float64{5, 10, 10}))
	require.InDelta(t, 1.8, quantile(0.9, bounds, []float64{5, 10, 10}), 1e-9)
	require.Equal(t, 3.0, quantile(0.5, bounds, []float64{0, 0, 10}))
	require.Zero(t, quantile(0.5, bounds, []float64{0, 0, 0}))
	require.Zero(t, quantile(0.5, nil, nil))
}

func TestDocumentNeedsItsMarkers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "document.md")
	require.Error(t, Report{}.Document(path))
	require.NoError(t, os.WriteFile(path, []byte("no markers"), 0o600))
	require.ErrorContains(t, Report{}.Document(path), "markers")
}
