package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// permissions tries what a worker needs permission for. It uses a connection of its own,
// since NATS reports a refusal only as the connection's last error.
//
// The messages expect a stream that does not exist, so that the stream which receives
// them refuses them. Lifecycle events are tried only where that stream passes them on: plain
// subscribers would receive them.
func (d *doctor) permissions(ctx context.Context) Result {
	nc, err := worker.Connect(d.cfg.NATS, "doctor", zap.NewNop(), nats.MaxReconnects(0))
	if err != nil {
		return noNATS()
	}
	defer nc.Close()
	nobody := store.UserTag("doctor")
	var publish []string
	for _, p := range d.subjects.RefreshPartitions() {
		publish = append(publish, p.Schedule(nobody))
	}
	publish = append(publish, d.subjects.Recovery(nobody), d.subjects.RecoveryPart(nobody), d.subjects.DeadLetter(nobody, "doctor"), d.subjects.Changed(nobody))
	if d.cfg.Audit.Mode != config.AuditOff {
		for _, p := range d.subjects.AuditPartitions() {
			publish = append(publish, p.Chain(nobody))
		}
	}
	not := "; lifecycle events are not tried, since subscribers would hear them"
	for _, p := range d.subjects.LifecyclePartitions() {
		if p.Published != "" {
			publish, not = append(publish, p.Publish(events.TokenStored, nobody)), ", and lifecycle events"
		}
	}
	var refused []string
	for _, subject := range publish {
		msg := nats.NewMsg(subject)
		msg.Header.Set("Nats-Expected-Stream", "NONE")
		switch err := try(ctx, nc, func() error { return nc.PublishMsg(msg) }); {
		case errors.Is(err, nats.ErrPermissionViolation):
			refused = append(refused, "publish "+subject)
		case err != nil:
			return failed("see how the server is", "%v", err)
		}
	}
	for _, subject := range []string{d.subjects.TokenGet(nobody), d.subjects.Changed(nobody)} {
		err := try(ctx, nc, func() error { _, err := nc.SubscribeSync(subject); return err })
		switch {
		case errors.Is(err, nats.ErrPermissionViolation):
			refused = append(refused, "subscribe "+subject)
		case err != nil:
			return failed("see how the server is", "%v", err)
		}
	}
	if len(refused) > 0 {
		return failed("permit the worker's role what deploy/nats/roles/worker.conf lists", "NATS refuses: %s", strings.Join(refused, "; "))
	}
	return ok("may hear token requests and changes, and write schedules, recovery entries, dead letters and the audit log%s", not)
}

// try does something and returns the error that the server reports about it.
func try(ctx context.Context, nc *nats.Conn, do func() error) error {
	before := nc.LastError()
	if err := do(); err != nil {
		return err
	}
	if err := nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("asking NATS for an answer: %w", err)
	}
	if last := nc.LastError(); last != nil && (before == nil || last.Error() != before.Error()) {
		return last
	}
	return nil
}
