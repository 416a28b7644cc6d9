package chaos

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/workerprocess"
)

// resetStreams breaks off HTTP/2 exchanges in every way, before and after the institution was
// asked, and HTTP/1.1 connections. It compares how often tokens were presented with the calls
// of the workers: only a worker may decide to present a token again, not its HTTP client.
func (r *run) resetStreams(ctx context.Context) error {
	before := make([]presentations, len(r.workers))
	for i, w := range r.workers {
		p, err := r.settledPresentations(ctx, w, presentations{})
		if err != nil {
			return err
		}
		before[i] = p
	}
	r.early.Store(true)
	err := r.withFaults(ctx, faultsOf(0.9, meshsim.Reset(), meshsim.Drop(), meshsim.Cut()), r.Lifetime/3, r.Lifetime/3+3*time.Second, waveCalls)
	r.early.Store(false)
	for i, w := range r.workers {
		after, laterErr := r.settledPresentations(ctx, w, before[i])
		err = errors.Join(err, laterErr)
		if extra := after.extra - before[i].extra; laterErr == nil && after.pid == before[i].pid && extra > 0 {
			r.repeats = append(r.repeats, repeat{time.Now(), extra})
		}
	}
	return err
}

type repeat struct {
	at time.Time
	n  int
}

// presentations of refresh tokens at the address of one worker, beyond the calls that its
// process counted.
type presentations struct {
	pid, extra int
}

// settledPresentations compares the ledger with the process's own count until no call is
// under way: until there are no more extra presentations than before, or some time has passed.
func (r *run) settledPresentations(ctx context.Context, w *process, before presentations) (presentations, error) {
	var least presentations
	tries := 0
	return least, until(ctx, settleWithin, "a worker's count of calls", func() error {
		counted, pid, err := w.calls(ctx)
		if err != nil {
			tries = 0
			return err
		}
		now := presentations{pid: pid, extra: r.requestsTo(w) - counted}
		if tries++; tries == 1 || now.pid != least.pid || now.extra < least.extra {
			least = now
		}
		enough := 15
		if before.pid != 0 {
			enough = 100 // a slow call must not be counted
		}
		if tries < enough && (before.pid == 0 || least.extra > before.extra) {
			return errors.New("calls may be under way")
		}
		return nil
	})
}

func (r *run) requestsTo(w *process) int {
	n := 0
	if w.peer != nil {
		n = w.peer.TurnedAway()
	}
	return n + r.refreshCallsIf(w.serves)
}

func (p *process) serves(q meshsim.Request) bool {
	return strings.HasSuffix(p.mesh, "//"+q.Local)
}

func (p *process) calls(ctx context.Context) (n, pid int, err error) {
	p.mu.Lock()
	if p.cmd != nil {
		pid = p.cmd.Process.Pid
	}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	metrics, err := workerprocess.ReadMetrics(ctx, p.admin)
	return int(metrics.Value("latchkey_refreshes_total")), pid, err
}
