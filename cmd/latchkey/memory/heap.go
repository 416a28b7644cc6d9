package memory

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// room is by how many bytes the heap grows between two garbage collections, at least. By
// Go's own rule a heap grows by what is in use. Of a worker that is little, and collecting
// it took a fifth of the CPU time of token requests.
const room = 32 << 20

// Heap says what rules the garbage collector.
type Heap struct {
	// Limit is what Go's memory may come to, in bytes; 0: nothing limits it.
	Limit int64
	// Room: the heap grows by room between collections. Else GOGC decides.
	Room bool
}

// TuneHeap limits Go's memory to nine tenths of what the control group of the process may
// use, and makes garbage collections rare while the heap is small. The variables of Go's
// runtime go before: GOMEMLIMIT before the one, GOGC before the other. AUTOMEMLIMIT, which
// the library reads, sets another share. Call it once.
//
// An error says that the limit could not be read. Go's memory then has none.
func TuneHeap() (Heap, error) {
	limit, err := memlimit.Set()
	if errors.Is(err, memlimit.ErrCgroupsNotSupported) {
		err = nil
	}
	h := Heap{Limit: limit}
	if limit == math.MaxInt64 {
		h.Limit = 0
	}
	if os.Getenv("GOGC") == "" {
		h.Room = true
		leaveRoom(0)
	}
	if err != nil {
		return h, fmt.Errorf("limiting Go's memory: %w", err)
	}
	return h, nil
}

// leaveRoom sets the next collection's target, now and after each collection. before is the
// percentage that is set; 0: Go's own.
func leaveRoom(before uint64) {
	percent := percentage(scanned())
	if percent > before+before/10 || percent < before-before/10 {
		debug.SetGCPercent(int(percent)) // it stops all goroutines for a moment
		before = percent
	}
	// Nobody holds the object, so the next collection finds it.
	runtime.AddCleanup(new([16]byte), leaveRoom, before)
}

// scanned is of how many bytes GOGC is a percentage: what the last collection found in use in
// the heap, in stacks and in global variables.
func scanned() (size uint64) {
	parts := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(parts)
	for _, part := range parts {
		size += part.Value.Uint64()
	}
	return size
}

// percentage is the GOGC by which the heap grows by room, and by no less than what is in use.
func percentage(scanned uint64) uint64 { return max(100, 100*room/max(scanned, goMin)) }

// goMin is the heap below which Go does not collect at 100 %. It grows with the percentage.
const goMin = 4 << 20
