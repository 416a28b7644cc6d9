package memory_test

import (
	"os"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/memory"
)

func read(name string) uint64 {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// A small heap grows by 32 MiB between collections, and a large one by what is in use, as
// Go has it.
func TestTheHeapHasRoom(t *testing.T) {
	t.Setenv("GOGC", "100")
	heap, err := memory.TuneHeap()
	require.NoError(t, err)
	require.False(t, heap.Room, "GOGC goes before")
	require.EqualValues(t, 100, read("/gc/gogc:percent"))

	unset(t, "GOGC")
	heap, err = memory.TuneHeap()
	require.NoError(t, err)
	require.True(t, heap.Room)
	collected := func(condition func() bool, what string) {
		t.Helper()
		require.Eventually(t, func() bool {
			runtime.GC()
			return condition()
		}, time.Minute, 10*time.Millisecond, what)
	}
	roomy := func() bool {
		goal := read("/gc/heap/goal:bytes")
		return goal >= 32<<20 && goal < 100<<20
	}
	collected(roomy, "a small heap")
	large := make([]byte, 200<<20) // of which no page is used
	collected(func() bool { return read("/gc/gogc:percent") == 100 }, "a large heap")
	require.Less(t, read("/gc/heap/goal:bytes"), uint64(500<<20))
	runtime.KeepAlive(large)
	collected(roomy, "a small heap again")
}

// unset takes a variable away until the test ends.
func unset(t *testing.T, name string) {
	t.Helper()
	t.Setenv(name, "")
	require.NoError(t, os.Unsetenv(name))
}
