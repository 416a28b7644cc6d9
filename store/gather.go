package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// gather makes one command of calls that come while another command is under
// way. A call that comes alone waits for nothing. Without it a worker stores
// connects at half the rate (docs/decisions/0044).
type gather[In, Out any] struct {
	// doing says what a caller waits for.
	doing string
	// run does what was gathered, and returns an outcome for each. It is not
	// ended by the end of any caller's context.
	run func(ctx context.Context, in []In) []outcome[Out]

	mu      sync.Mutex
	waiting []*gathered[In, Out]
	running int
}

type outcome[Out any] struct {
	out Out
	err error
}

type gathered[In, Out any] struct {
	ctx     context.Context // of the caller
	in      In
	outcome outcome[Out]
	// panicked is what a command panicked with: each caller goes on with it, who
	// may know what to do then.
	panicked any
	done     chan struct{}
}

// Two commands at once keep the database busy while an answer is on its way;
// the bound keeps them well below the size of a message.
const gatheredCommands, maxGathered = 2, 100

// do returns the outcome of one call. When ctx ends first, what was asked for
// may or may not happen.
func (g *gather[In, Out]) do(ctx context.Context, in In) (Out, error) {
	call := &gathered[In, Out]{ctx: ctx, in: in, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, call)
	if g.running < gatheredCommands {
		g.running++
		go g.work(context.WithoutCancel(ctx))
	}
	g.mu.Unlock()
	select {
	case <-call.done:
		if call.panicked != nil {
			panic(call.panicked)
		}
		return call.outcome.out, call.outcome.err
	case <-ctx.Done():
		var none Out
		return none, fmt.Errorf("%s: %w", g.doing, ctx.Err())
	}
}

// work runs what waits until nothing does.
func (g *gather[In, Out]) work(ctx context.Context) {
	for {
		g.mu.Lock()
		// What nobody waits for any more would only keep the others waiting.
		g.waiting = slices.DeleteFunc(g.waiting, func(call *gathered[In, Out]) bool { return call.ctx.Err() != nil })
		n := min(len(g.waiting), maxGathered)
		if n == 0 {
			g.running--
			g.mu.Unlock()
			return
		}
		batch := g.waiting[:n:n]
		g.waiting = g.waiting[n:]
		g.mu.Unlock()

		g.settle(ctx, batch)
	}
}

// settle runs one command and gives each caller its outcome.
func (g *gather[In, Out]) settle(ctx context.Context, batch []*gathered[In, Out]) {
	defer func() {
		v := recover()
		for _, call := range batch {
			call.panicked = v
			close(call.done)
		}
	}()
	in := make([]In, len(batch))
	for i, call := range batch {
		in[i] = call.in
	}
	for i, o := range g.run(ctx, in) {
		batch[i].outcome = o
	}
}

// failed is the outcome of n calls that failed alike.
func failed[Out any](n int, err error) []outcome[Out] {
	all := make([]outcome[Out], n)
	for i := range all {
		all[i].err = err
	}
	return all
}
