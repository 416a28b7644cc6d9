package envelope

import (
	"fmt"
	"sync"
	"time"
)

// KMS can be away, or refuse. While it is away the keys at hand go on for a
// while; a refusal is how an operator turns off a key, so it holds at once.

// Pauses between calls while KMS is away.
const (
	pauseMin = time.Second
	pauseMax = 30 * time.Second
)

// gate keeps calls from a KMS key that failed a moment ago, so that not every
// request waits for the same timeout. After each pause it lets one call try.
type gate struct {
	mu    sync.Mutex
	pause time.Duration // 0: open
	until time.Time
	last  error // why it is closed
}

// gate returns the gate of a KMS key, named as calls name it. One key that is
// away does not stand in for another.
func (e *Envelope) gate(key string) *gate {
	e.gatesMu.Lock()
	defer e.gatesMu.Unlock()
	g, ok := e.gates[key]
	if !ok {
		g = &gate{}
		e.gates[key] = g
	}
	return g
}

// away reports whether KMS could not be reached when last called, and whether
// it is time to try again.
func (g *gate) away(now time.Time) (away, due bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pause > 0 && !Refused(g.last), !now.Before(g.until)
}

// enter returns nil if a call may be made now; try tells whether it is the one
// that finds out how KMS is.
func (g *gate) enter(now time.Time) (try bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pause == 0 {
		return false, nil
	}
	if now.Before(g.until) {
		return false, fmt.Errorf("not asked again so soon after: %w", g.last)
	}
	g.until = now.Add(g.pause)
	return true, nil
}

// left records how a call went.
func (g *gate) left(now time.Time, try bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err == nil:
		g.pause, g.last = 0, nil
	case g.pause == 0:
		g.pause, g.until, g.last = pauseMin, now.Add(pauseMin), err
	case try: // calls that began before the gate closed do not count again
		g.pause = min(2*g.pause, pauseMax)
		g.until, g.last = now.Add(g.pause), err
	}
}

// ask makes a call to KMS through the gate of a key. What is about one
// ciphertext alone (own) is no news of KMS. The error wraps ErrKMS unless own.
func ask[T any](e *Envelope, key, operation string, own func(error) bool, call func() (T, error)) (T, error) {
	g := e.gate(key)
	try, err := g.enter(e.opts.Now())
	if err != nil {
		var none T
		return none, fmt.Errorf("%w: %w", ErrKMS, err)
	}
	out, err := call()
	e.opts.OnKMS(operation, err)
	if err != nil && own(err) {
		g.left(e.opts.Now(), try, nil)
		return out, err
	}
	g.left(e.opts.Now(), try, err)
	if err != nil {
		return out, fmt.Errorf("%w: %w", ErrKMS, err)
	}
	return out, nil
}
