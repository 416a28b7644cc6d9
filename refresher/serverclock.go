package refresher

import (
	"sync"
	"time"
)

// serverClock is how far the clock of the NATS server is ahead of ours. Schedules
// fire by that clock: one for a moment that is past there and to come here fires
// at once, and a message that is put off to it comes back again and again.
type serverClock struct {
	mu    sync.Mutex
	by    time.Duration
	until time.Time
}

// maxAhead bounds what is believed of the server's clock, forgetAhead how long.
// onItsWay is what a message may have taken from there to us.
const (
	maxAhead    = time.Hour
	onItsWay    = time.Second
	forgetAhead = time.Minute
)

// heard notes that the server had stored a message at a time by its clock, at now
// by ours. That the message lay there for a while makes its clock seem less far
// ahead, never more.
func (c *serverClock) heard(stored, now time.Time) {
	if !stored.After(now) {
		return
	}
	by := min(stored.Sub(now)+onItsWay, maxAhead)
	c.mu.Lock()
	defer c.mu.Unlock()
	if by >= c.by || now.After(c.until) {
		c.by, c.until = by, now.Add(forgetAhead)
	}
}

// ahead is by how much the server's clock is ahead as far as is known.
func (c *serverClock) ahead(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.After(c.until) {
		return 0
	}
	return c.by
}

// Heard has the dispatcher learn from a message when the NATS server stored it, by
// the server's clock: schedules come due by that clock, and not by ours.
func (d *Dispatcher) Heard(stored time.Time) { d.clock.heard(stored, d.options.Now()) }
