package envelope

import (
	"fmt"
	"sync"
	"time"
)

// During an outage of KMS cached keys stay in use for a while. A refusal takes effect at
// once, since it is how an operator disables a key.

// Pauses between calls during an outage.
const (
	pauseMin = time.Second
	pauseMax = 30 * time.Second
)

// gate is a circuit breaker for one KMS key, so that not every call waits for the same
// timeout. After each pause it lets one call through.
type gate struct {
	mu    sync.Mutex
	pause time.Duration // 0: all calls pass
	until time.Time
	last  error // that of the last call, if it failed
}

func (e *Envelope) gate(key string) *gate {
	g, _ := e.gates.LoadOrStore(key, &gate{})
	return g.(*gate)
}

// outage reports whether there is an outage, and whether the next call is due.
func (g *gate) outage(now time.Time) (away, due bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pause > 0 && !Refused(g.last), !now.Before(g.until)
}

// enter returns nil if a call may be made now. try: it is the one after a pause.
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

// record records the result of a call.
func (g *gate) record(now time.Time, try bool, err error) {
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

// callKMS makes a call to KMS through the gate of a key. An error about one ciphertext alone
// (own) does not concern the gate. All others wrap ErrKMS.
func callKMS[T any](e *Envelope, key, operation string, own func(error) bool, call func() (T, error)) (T, error) {
	g := e.gate(key)
	try, err := g.enter(e.opts.Now())
	if err != nil {
		var none T
		return none, fmt.Errorf("%w: %w", ErrKMS, err)
	}
	out, err := call()
	e.opts.OnKMS(operation, err)
	if err != nil && own(err) {
		g.record(e.opts.Now(), try, nil)
		return out, err
	}
	g.record(e.opts.Now(), try, err)
	if err != nil {
		return out, fmt.Errorf("%w: %w", ErrKMS, err)
	}
	return out, nil
}
