package memory_test

import (
	"os"
	"runtime"
	"runtime/metrics"
	"sync"
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

// A small heap grows by 32 MiB between collections, however large the stacks are, and a large
// one by what is in use, as Go has it.
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
	end := deepStacks(32)
	collected(roomy, "with 32 MiB of stacks")
	end()
	large := make([]byte, 200<<20) // of which no page is used
	collected(func() bool { return read("/gc/gogc:percent") == 100 }, "a large heap")
	require.Less(t, read("/gc/heap/goal:bytes"), uint64(500<<20))
	runtime.KeepAlive(large)
	collected(roomy, "a small heap again")
}

// deepStacks starts goroutines that use 1 MiB of stack each, until end is called.
func deepStacks(n int) (end func()) {
	var started, ended sync.WaitGroup
	wait := make(chan struct{})
	for range n {
		started.Add(1)
		ended.Go(func() {
			descend(1<<20, func() {
				started.Done()
				<-wait
			})
		})
	}
	started.Wait()
	return func() {
		close(wait)
		ended.Wait()
	}
}

// descend calls do when it has used some bytes of stack.
func descend(bytes int, do func()) byte {
	var frame [4 << 10]byte
	if bytes <= 0 {
		do()
	} else {
		frame[0] = descend(bytes-len(frame), do)
	}
	return frame[bytes&1]
}

// unset takes a variable away until the test ends.
func unset(t *testing.T, name string) {
	t.Helper()
	t.Setenv(name, "")
	require.NoError(t, os.Unsetenv(name))
}
