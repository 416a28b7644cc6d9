// Package memory keeps what a process holds in memory from reaching a disk or
// another process: no core dumps, no debugger of the same user, no swap.
package memory

import "errors"

// Mode says what becomes of swapping.
type Mode string

const (
	// Auto locks the memory where the system lets a process lock all it will
	// ever use; where it doesn't, an allocation could fail later and end the
	// process, so the memory is not locked.
	Auto Mode = "auto"
	// Required locks the memory or fails.
	Required Mode = "required"
	// Off leaves swapping to the system.
	Off Mode = "off"
)

// ErrLock: the memory can't be locked.
var ErrLock = errors.New("the memory can't be locked against swapping")

// Report says what Guard did.
type Report struct {
	// Dumps is what keeps core dumps and debuggers away; empty: nothing does.
	Dumps string
	// Locked: no memory of the process goes to swap.
	Locked bool
	// Why the memory is not locked, when it is not.
	Why string
}

// Guard turns off core dumps and tracing by other processes of the same user,
// and locks all present and future memory as the mode says. It is meant to be
// called once, before there are secrets. The error wraps ErrLock with Required
// when the memory can't be locked.
func Guard(mode Mode) (Report, error) { return guard(mode) }
