package refresher

import (
	"sync"
	"time"
)

// serverClock is how far the clock of the NATS server, by which schedules fire, is ahead
// of ours. Without it a message that is postponed to a moment between the two clocks
// would come back again and again.
type serverClock struct {
	mu     sync.Mutex
	offset time.Duration
	until  time.Time
}

// maxAhead bounds how far the server's clock is believed to be ahead, forgetAhead how
// long. onItsWay is the time that a message may have taken to us.
const (
	maxAhead    = time.Hour
	onItsWay    = time.Second
	forgetAhead = time.Minute
)

// note notes that the server stored a message at a time by its clock, no later than now by
// ours. That it lay there for a while makes the clock seem less far ahead, never more.
func (c *serverClock) note(stored, now time.Time) {
	if !stored.After(now) {
		return
	}
	by := min(stored.Sub(now)+onItsWay, maxAhead)
	c.mu.Lock()
	defer c.mu.Unlock()
	if by >= c.offset || now.After(c.until) {
		c.offset, c.until = by, now.Add(forgetAhead)
	}
}

// ahead is by how much the server's clock is ahead, as far as known.
func (c *serverClock) ahead(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.After(c.until) {
		return 0
	}
	return c.offset
}

// NoteServerTime notes when the NATS server, by whose clock schedules fire, stored a message.
func (d *Dispatcher) NoteServerTime(stored time.Time) { d.clock.note(stored, d.options.Now()) }
