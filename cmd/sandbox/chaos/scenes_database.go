package chaos

import (
	"context"
	"time"
)

func (r *run) cutDatabase(ctx context.Context) error {
	r.stack.MongoDB.Proxy().Cut()
	defer r.stack.MongoDB.Proxy().Restore()
	return r.pause(ctx, 500*time.Millisecond, 6*time.Second)
}

func (r *run) restartDatabase(ctx context.Context) error {
	return r.restart(ctx, r.stack.MongoDB, 200*time.Millisecond, 3*time.Second)
}

// cutAndKill kills a worker whose answers may be in the recovery stream alone. It waits until
// they are there: before that only the worker has them.
func (r *run) cutAndKill(ctx context.Context) error {
	r.stack.MongoDB.Proxy().Cut()
	defer r.stack.MongoDB.Proxy().Restore()
	if err := r.pause(ctx, 5*time.Second, 7*time.Second); err != nil {
		return err
	}
	return r.killWorker(ctx)
}
