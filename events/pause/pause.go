// Package pause waits between two attempts.
package pause

import (
	"context"
	"time"
)

// For waits for d, or until ctx ends, whose error it then returns. Without a positive d it
// does not wait.
func For(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
