// Package memory keeps the memory of a process from reaching a disk or another process:
// no core dumps, no debuggers of the same user, no swap. It also says how much memory Go may
// use, and when it collects garbage.
package memory

import "errors"

// Mode says whether to lock memory against swapping.
type Mode string

const (
	// Auto locks memory only if the process may lock all it will ever use. Otherwise a
	// later allocation could fail and end the process.
	Auto Mode = "auto"
	// Required locks memory or fails.
	Required Mode = "required"
	// Off does not lock memory.
	Off Mode = "off"
)

// ErrLock: the memory can't be locked.
var ErrLock = errors.New("the memory can't be locked against swapping")

// Report says what Guard did.
type Report struct {
	// Dumps says what prevents core dumps and debuggers; empty: nothing does.
	Dumps string
	// Locked: no memory of the process goes to swap.
	Locked bool
	// Why says why the memory is not locked; empty: it is.
	Why string
}

// Guard turns off core dumps and tracing by other processes of the same user, and locks
// all present and future memory as the mode says. Call it once, before there are
// secrets. With Required the error wraps ErrLock if the memory can't be locked.
func Guard(mode Mode) (Report, error) { return guard(mode) }
