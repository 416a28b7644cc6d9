package operator

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

// part is a part of the overview as it was at a time. Problem says why there is nothing
// newer, or nothing at all; without one and without a time it is being read.
type part[T any] struct {
	At      time.Time `json:"at,omitzero"`
	Problem string    `json:"problem,omitempty"`
	Value   T         `json:"value"`
}

// cache keeps what is expensive to find out, so that many open pages cost no more than
// one.
type cache[T any] struct {
	// every is the least time between two loads. A slow load is repeated less often, so
	// that loads take a twentieth of the time at most.
	every time.Duration
	load  func(context.Context) (T, error)
	what  string
	// counts: a load takes the longer the more grants there are.
	counts bool
	// waits: a load only waits, so a slow one costs no more than a fast one.
	waits bool

	mu      sync.Mutex
	part    part[T]
	next    time.Time
	took    time.Duration // the last load that succeeded; of what counts, also a longer one that has failed since
	loading *loading
}

// loading is a load that is under way.
type loading struct {
	done chan struct{}
	stop context.CancelFunc
	// stopped: nobody wants its result any more.
	stopped bool
}

const (
	// A load may take a few times what the last one took, within these bounds: one that
	// hangs is given up soon. One that counts comes to its end after some tries.
	minLoadTimeout = 3 * time.Second
	maxLoadTimeout = 30 * time.Second
	// retryAfter is how long a failure is kept. One that counts is repeated after as long as it
	// took: should it never come to its end, it takes half of the time at most.
	retryAfter = 2 * time.Second
	// firstWait and laterWait bound how long a caller waits for a load, without and with
	// something to show meanwhile.
	firstWait = 2 * time.Second
	laterWait = 100 * time.Millisecond
)

func (c *cache[T]) get(ctx context.Context, p *Page) part[T] {
	c.mu.Lock()
	if c.loading == nil && !p.Now().Before(c.next) && p.ctx.Err() == nil {
		c.begin(p) //nolint:contextcheck // the load serves other callers too
	}
	under, wait := c.loading, firstWait
	// A value from long ago, when somebody last looked, is worth no more than none.
	if known := c.part; known.Problem != "" || p.Now().Sub(known.At) < 2*c.every+laterWait {
		wait = laterWait
	}
	c.mu.Unlock()
	if under != nil {
		enough := time.NewTimer(wait)
		defer enough.Stop()
		select {
		case <-under.done:
		case <-enough.C:
		case <-ctx.Done():
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.part
}

// forget makes the next get load again, whatever is under way.
func (c *cache[T]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = time.Time{}
	if c.loading != nil {
		c.loading.stopped = true
		c.loading.stop()
	}
}

// begin begins a load. The caller holds the lock.
func (c *cache[T]) begin(p *Page) {
	ctx, cancel := context.WithTimeout(p.ctx, c.timeout())
	l := &loading{done: make(chan struct{}), stop: cancel}
	c.loading = l
	p.background.Go(func() {
		defer cancel()
		start := time.Now()
		value, err := c.load(ctx)
		c.end(p, l, value, err, time.Since(start))
	})
}

// timeout is how long a load may take.
func (c *cache[T]) timeout() time.Duration {
	if c.part.At.IsZero() {
		return maxLoadTimeout
	}
	return min(max(4*c.took, minLoadTimeout), maxLoadTimeout)
}

func (c *cache[T]) end(p *Page, l *loading, value T, err error, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(l.done)
	c.loading = nil
	switch {
	case l.stopped:
	case err != nil:
		pause := retryAfter
		if c.counts {
			c.took, pause = max(c.took, took), max(pause, took)
		}
		c.next = p.Now().Add(pause)
		if c.part.Problem == "" && p.ctx.Err() == nil {
			p.Log.Warn("the operator's page can't show everything", zap.String("what", c.what), zap.Error(err))
		}
		why := "see the worker's log"
		if denied := (*refusal)(nil); errors.As(err, &denied) {
			why = denied.text
		}
		c.part.Problem = c.what + " can't be read now; " + why
	default:
		c.part, c.took = part[T]{At: p.Now(), Value: value}, took
		if c.waits {
			took = 0
		}
		c.next = p.Now().Add(max(c.every, 20*took))
	}
}
