package bench_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/bench"
)

func TestMedian(t *testing.T) {
	require.Equal(t, 2.0, bench.Median([]float64{3, 1, 2}))
	require.Equal(t, 2.5, bench.Median([]float64{4, 1, 3, 2}))
	require.Zero(t, bench.Median(nil))
}
