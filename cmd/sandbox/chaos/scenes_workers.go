package chaos

import (
	"context"
	"errors"
	"syscall"
	"time"
)

// loss is a time in which a worker may have been the only holder of its answers.
type loss struct {
	worker   *process
	from, to time.Time
}

// heldBefore is how long a worker may be the only holder of an answer, until the database or
// the recovery stream has it.
const heldBefore = 5 * time.Second

// kill notes when the worker was dead: until then it can receive answers.
func (r *run) kill(w *process) {
	w.kill()
	now := time.Now()
	r.losses = append(r.losses, loss{worker: w, from: now.Add(-heldBefore), to: now})
}

func (r *run) killWorker(ctx context.Context) error {
	w := r.workers[r.rng.IntN(len(r.workers))]
	r.kill(w)
	if err := r.pause(ctx, 100*time.Millisecond, 3*time.Second); err != nil {
		return err
	}
	return w.start()
}

func (r *run) killAll(ctx context.Context) error {
	for _, w := range r.workers {
		r.kill(w)
	}
	if err := r.pause(ctx, 100*time.Millisecond, 2*time.Second); err != nil {
		return err
	}
	return r.eachWorker((*process).start)
}

func (r *run) stopWorker(context.Context) error {
	w := r.workers[r.rng.IntN(len(r.workers))]
	return errors.Join(w.terminate(), w.start())
}

// suspendWorkers suspends one worker, or all of them, for longer than a lease, like a virtual
// machine. An answer that comes meanwhile is late for its call, and another worker presents
// the same token.
func (r *run) suspendWorkers(ctx context.Context) error {
	suspended := r.workers
	if r.rng.IntN(2) == 0 {
		suspended = []*process{r.workers[r.rng.IntN(len(r.workers))]}
	}
	from := time.Now().Add(-heldBefore)
	var err error
	for _, w := range suspended {
		err = errors.Join(err, w.signal(syscall.SIGSTOP))
	}
	err = errors.Join(err, r.pause(ctx, lease+clockSkew, lease+clockSkew+3*time.Second))
	for _, w := range suspended {
		err = errors.Join(err, w.signal(syscall.SIGCONT))
		r.losses = append(r.losses, loss{worker: w, from: from, to: time.Now()})
	}
	return err
}
