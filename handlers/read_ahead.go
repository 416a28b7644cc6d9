package handlers

import (
	"context"
	"sync"
	"time"
)

// ahead does beside the requests what one to come would have to wait for.
type ahead struct {
	slots  chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	atWork sync.WaitGroup
}

const (
	// maxAhead is how much is done at once. What is more is left to the requests.
	maxAhead = 128
	// aheadTimeout bounds each.
	aheadTimeout = 5 * time.Second
)

func newAhead() *ahead {
	a := &ahead{slots: make(chan struct{}, maxAhead)}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// do has something done, unless there is too much to do. A fault in it is left
// for the request that meets it too, and knows what to do.
func (a *ahead) do(work func(ctx context.Context)) {
	select {
	case a.slots <- struct{}{}:
	default:
		return
	}
	a.atWork.Go(func() {
		defer func() { <-a.slots }()
		defer func() { _ = recover() }()
		ctx, cancel := context.WithTimeout(a.ctx, aheadTimeout)
		defer cancel()
		work(ctx)
	})
}

// stop waits for what is being done. Nothing may be begun any more.
func (a *ahead) stop() {
	a.cancel()
	a.atWork.Wait()
}
