package handlers

import (
	"context"
	"time"
)

// slots bound how many messages are handled at once, of one source or of
// several together.
type slots struct {
	taken chan struct{}
	// shared: several sources wait for them.
	shared bool
}

// slotsOf makes the slots of each subject's source.
func slotsOf(sources map[string]Source) map[string]slots {
	sharing := map[string]int{}
	for _, source := range sources {
		sharing[source.Shared]++
	}
	all, shared := map[string]slots{}, map[string]slots{}
	for subject, source := range sources {
		n := sharing[source.Shared]
		if source.Shared == "" || n == 1 {
			all[subject] = slots{taken: make(chan struct{}, source.Concurrency)}
			continue
		}
		if _, ok := shared[source.Shared]; !ok {
			shared[source.Shared] = slots{taken: make(chan struct{}, source.Concurrency+n-1), shared: true}
		}
		all[subject] = shared[source.Shared]
	}
	return all
}

// claimWait is how long a claim waits for more slots than one.
const claimWait = 5 * time.Millisecond

// claim waits for a free slot. If other sources share the slots it takes that one only,
// else all that are free, and if most are taken it waits a moment for more: a pull for
// each message would cost as much as the message. It returns 0 when ctx ends.
func (s slots) claim(ctx context.Context) (n int) {
	select {
	case s.taken <- struct{}{}:
	case <-ctx.Done():
		return 0
	}
	if s.shared {
		return 1
	}
	wait := time.NewTimer(claimWait)
	defer wait.Stop()
	for n = 1 + s.claimFree(); n < cap(s.taken)/4; n++ {
		select {
		case s.taken <- struct{}{}:
		case <-wait.C:
			return n
		case <-ctx.Done():
			return n
		}
	}
	return n
}

// claimFree takes all slots that are free now and returns how many.
func (s slots) claimFree() (n int) {
	for {
		select {
		case s.taken <- struct{}{}:
			n++
		default:
			return n
		}
	}
}

// free gives n slots back.
func (s slots) free(n int) {
	for range n {
		<-s.taken
	}
}
