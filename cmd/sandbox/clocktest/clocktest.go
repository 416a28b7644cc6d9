// Package clocktest gives tests a clock.
package clocktest

import (
	"sync"
	"time"
)

// Clock is a time that only the test moves, but for [NewRunning].
type Clock struct {
	mu   sync.Mutex
	base func() time.Time
	off  time.Duration
}

// New returns a clock that stands at a time.
func New(now time.Time) *Clock { return &Clock{base: func() time.Time { return now }} }

// NewRunning returns a clock that runs, off by as much from the machine's.
func NewRunning(off time.Duration) *Clock { return &Clock{base: time.Now, off: off} }

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base().Add(c.off)
}

// Set stops the clock at a time.
func (c *Clock) Set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.off = func() time.Time { return now }, 0
}

// Advance moves the clock on.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += d
}
