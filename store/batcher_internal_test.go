package store

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A panic of a command is its callers', who have somebody to catch it, and the
// next command runs as if nothing had been.
func TestAPanicIsTheCallers(t *testing.T) {
	sick := true
	g := batcher[int, int]{run: func(_ context.Context, in []int) []outcome[int] {
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

// A call whose caller has left while it waited is not carried out: others wait
// behind it.
func TestWhatNobodyWaitsForIsNotCarriedOut(t *testing.T) {
	begun, end := make(chan []int, batchCommands+1), make(chan struct{})
	g := batcher[int, int]{run: func(_ context.Context, in []int) []outcome[int] {
		begun <- in
		<-end
		return make([]outcome[int], len(in))
	}}
	var callers sync.WaitGroup
	for i := range batchCommands {
		callers.Go(func() { _, _ = g.do(t.Context(), i) })
		<-begun
	}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	_, err := g.do(ctx, 100)
	require.ErrorIs(t, err, context.Canceled)
	callers.Go(func() { _, _ = g.do(t.Context(), 200) })
	require.Eventually(t, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.waiting) == 2
	}, time.Minute, time.Millisecond)
	close(end)
	require.Equal(t, []int{200}, <-begun)
	callers.Wait()
}

// Callers that run at the same time share a command, even if commands take no time.
func TestCallersAtOnceShareACommand(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const n = 60
	commands := 0 // one at a time, on one processor
	g := batcher[int, int]{run: func(_ context.Context, in []int) []outcome[int] {
		commands++
		return make([]outcome[int], len(in))
	}}
	var callers sync.WaitGroup
	for i := range n {
		callers.Go(func() { _, _ = g.do(t.Context(), i) })
	}
	callers.Wait()
	require.Less(t, commands, n/4)
}
