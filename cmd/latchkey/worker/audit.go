package worker

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/store/audit"
)

// AuditLog returns the audit log that the configuration asks for, nil for none.
// heads, log and reg may be nil.
func AuditLog(cfg config.Config, js jetstream.JetStream, worker string, now func() time.Time, heads audit.Heads, log *zap.Logger, reg prometheus.Registerer) *audit.Log {
	if cfg.Audit.Mode == config.AuditOff {
		return nil
	}
	return audit.New(audit.Options{
		JetStream: js, Subjects: cfg.NATS.Subjects(), Worker: worker, NewID: newID, Now: now,
		Heads: heads, Retention: cfg.Retention.Audit, Log: log, Metrics: reg,
	})
}

// auditGrace bounds what the end of the audit log adds to a stop.
const auditGrace = 5 * time.Second

// stopAudit writes what waits. A log that can't be written now is no reason to
// call the stop unclean: it shows, and verifying finds no end.
func (w *worker) stopAudit() {
	ctx, cancel := context.WithTimeout(context.Background(), auditGrace)
	defer cancel()
	_ = w.audit.Stop(ctx) // it has logged why
}
