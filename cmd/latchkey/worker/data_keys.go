package worker

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// tendKeys keeps plain data keys in memory no longer than configured, and has
// those seal no more that an operator has retired.
func (w *worker) tendKeys(ctx context.Context) {
	ticker := time.NewTicker(min(max(w.cfg.DataKeys.CacheAge/10, time.Second), w.cfg.Reconcile.Interval))
	defer ticker.Stop()
	for {
		w.envelope.DropAged()
		if r, err := w.db.Retirement(ctx); err == nil {
			w.envelope.RetireBefore(r.Before)
		} else if ctx.Err() == nil {
			w.log.Warn("it can't be told whether data keys were retired; looking again soon", zap.Error(err))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
