package chaos

import (
	"context"
	"errors"
	"time"
)

func (r *run) cutDatabase(ctx context.Context) error {
	r.stack.MongoDB.Proxy().Cut()
	defer r.stack.MongoDB.Proxy().Restore()
	return r.pause(ctx, 500*time.Millisecond, 6*time.Second)
}

func (r *run) restartDatabase(ctx context.Context) error {
	r.stack.MongoDB.Stop()
	err := r.pause(ctx, 200*time.Millisecond, 3*time.Second)
	return errors.Join(err, r.stack.MongoDB.Restart())
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
