package store

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// batcher makes one command of the calls that come while other commands run. A call
// that comes alone waits for nothing. Without it a worker stores connects at half the
// rate (docs/decisions/0044).
type batcher[In, Out any] struct {
	// doing says what a caller waits for.
	doing string
	// run carries out calls and returns an outcome for each. No caller's context
	// ends it.
	run func(ctx context.Context, in []In) []outcome[Out]

	mu      sync.Mutex
	waiting []*batchedCall[In, Out]
	running int
}

func newBatcher[In, Out any](doing string, run func(context.Context, []In) []outcome[Out]) *batcher[In, Out] {
	return &batcher[In, Out]{doing: doing, run: run}
}

type outcome[Out any] struct {
	out Out
	err error
}

type batchedCall[In, Out any] struct {
	ctx     context.Context // of the caller
	in      In
	outcome outcome[Out]
	// panicked is the panic of the command; each caller panics with it.
	panicked any
	done     chan struct{}
}

// Two commands at once keep the database busy while an answer is on its way. The
// bound keeps a command well below the size of a message.
const batchCommands, maxBatched = 2, 100

// do returns the outcome of one call. If ctx ends first, the call may still be carried
// out.
func (g *batcher[In, Out]) do(ctx context.Context, in In) (Out, error) {
	call := &batchedCall[In, Out]{ctx: ctx, in: in, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, call)
	if g.running < batchCommands {
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

// work carries out calls until none waits.
func (g *batcher[In, Out]) work(ctx context.Context) {
	for {
		runtime.Gosched() // callers that can run now come along; where none can, this waits for nothing
		g.mu.Lock()
		g.waiting = slices.DeleteFunc(g.waiting, func(call *batchedCall[In, Out]) bool { return call.ctx.Err() != nil })
		n := min(len(g.waiting), maxBatched)
		if n == 0 {
			g.running--
			g.mu.Unlock()
			return
		}
		batch := g.waiting[:n:n]
		g.waiting = g.waiting[n:]
		g.mu.Unlock()

		g.carryOut(ctx, batch)
	}
}

func (g *batcher[In, Out]) carryOut(ctx context.Context, batch []*batchedCall[In, Out]) {
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

// outcomes returns the same outcome for n calls.
func outcomes[Out any](n int, out Out, err error) []outcome[Out] {
	return slices.Repeat([]outcome[Out]{{out, err}}, n)
}
