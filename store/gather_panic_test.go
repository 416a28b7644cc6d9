package store

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// A panic of a command is its callers', who have somebody to catch it, and the
// next command runs as if nothing had been.
func TestAPanicIsTheCallers(t *testing.T) {
	sick := true
	g := gather[int, int]{run: func(_ context.Context, in []int) []outcome[int] {
		if sick {
			panic("sick")
		}
		return []outcome[int]{{out: in[0]}}
	}}
	require.PanicsWithValue(t, "sick", func() { _, _ = g.do(t.Context(), 1) })
	sick = false
	out, err := g.do(t.Context(), 2)
	require.NoError(t, err)
	require.Equal(t, 2, out)
}
