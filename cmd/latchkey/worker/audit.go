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

// AuditLog returns the configured audit log; nil: it is off.
// heads, log and reg may be nil.
func AuditLog(cfg config.Config, js jetstream.JetStream, worker string, now func() time.Time, heads audit.Heads, log *zap.Logger, reg prometheus.Registerer) (*audit.Log, error) {
	if cfg.Audit.Mode == config.AuditOff {
		return nil, nil
	}
	return audit.New(audit.Options{
		JetStream: js, Subjects: cfg.NATS.Subjects(), Worker: worker, NewID: newID, Now: now,
		Heads: heads, Retention: cfg.Retention.Audit, Log: log, Metrics: reg,
	})
}

// auditGrace bounds how long the audit log may delay a stop.
const auditGrace = 5 * time.Second

// stopAudit writes the pending records. If that fails the stop is clean nevertheless:
// the failure is logged, and the audit log lacks the end of the chain.
func (w *worker) stopAudit() {
	ctx, cancel := context.WithTimeout(context.Background(), auditGrace)
	defer cancel()
	_ = w.audit.Stop(ctx) // it has logged why
}
