package operator

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
)

// part is a part of the overview as it was at a time. Problem says why there is nothing
// newer, or nothing at all.
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
	// waits: a load only waits, so a slow one costs no more than a fast one.
	waits bool

	mu      sync.Mutex
	part    part[T]
	next    time.Time
	loading chan struct{}
}

const (
	loadTimeout = 30 * time.Second
	// firstWait and laterWait bound how long a caller waits for a load, without and with
	// an older value to show.
	firstWait = 3 * time.Second
	laterWait = 100 * time.Millisecond
)

func (c *cache[T]) get(ctx context.Context, p *Page) part[T] {
	c.mu.Lock()
	if c.loading == nil && !p.Now().Before(c.next) && p.ctx.Err() == nil {
		done := make(chan struct{})
		c.loading = done
		p.background.Go(func() { c.reload(p, done) })
	}
	loading, wait := c.loading, firstWait
	if !c.part.At.IsZero() {
		wait = laterWait
	}
	c.mu.Unlock()
	if loading != nil {
		select {
		case <-loading:
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	shown := c.part
	if shown.At.IsZero() && shown.Problem == "" {
		shown.Problem = "not known yet"
	}
	return shown
}

// forget makes the next get load again.
func (c *cache[T]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = time.Time{}
}

func (c *cache[T]) reload(p *Page, done chan struct{}) {
	ctx, cancel := context.WithTimeout(p.ctx, loadTimeout)
	defer cancel()
	start := time.Now()
	value, err := c.load(ctx)
	took := time.Since(start)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waits {
		took = 0
	}
	c.next = p.Now().Add(max(c.every, 20*took))
	if err != nil {
		p.Log.Warn("the operator's page can't show everything", zap.String("what", c.what), zap.Error(err))
		c.part.Problem = c.what + " can't be read now; see the worker's log"
	} else {
		c.part = part[T]{At: p.Now(), Value: value}
	}
	c.loading = nil
	close(done)
}
