package handlers

import (
	"context"
	"sync"
	"time"
)

// timeLimit is a context that ends after a time. It is for work that hardly ever
// waits: until somebody does, there is no timer. It is not used before begin.
type timeLimit struct {
	context.Context
	until time.Time

	mu     sync.Mutex
	timed  context.Context // nil: nobody has waited
	cancel context.CancelFunc
}

func (l *timeLimit) begin(d time.Duration) {
	l.Context, l.until = context.Background(), time.Now().Add(d)
}

// stop frees what the context holds, as a CancelFunc does.
func (l *timeLimit) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
}

// Deadline implements context.Context.
func (l *timeLimit) Deadline() (time.Time, bool) { return l.until, true }

// Done implements context.Context.
func (l *timeLimit) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timed == nil {
		l.timed, l.cancel = context.WithDeadline(l.Context, l.until)
	}
	return l.timed.Done()
}

// Err implements context.Context.
func (l *timeLimit) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.timed != nil:
		return l.timed.Err()
	case !time.Now().Before(l.until):
		return context.DeadlineExceeded
	}
	return nil
}
