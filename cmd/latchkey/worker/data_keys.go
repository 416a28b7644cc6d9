package worker

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// maintainDataKeys drops plain data keys from memory when they reach the configured age,
// and stops sealing under data keys that an operator has retired.
func (w *worker) maintainDataKeys(ctx context.Context) {
	ticker := time.NewTicker(min(max(w.cfg.DataKeys.CacheAge/10, time.Second), w.cfg.Reconcile.Interval))
	defer ticker.Stop()
	for {
		w.envelope.DropAged()
		if r, err := w.db.Retirement(ctx); err == nil {
			w.envelope.RetireBefore(r.Before)
		} else if ctx.Err() == nil {
			w.log.Warn("can't read whether data keys were retired; retrying soon", zap.Error(err))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
