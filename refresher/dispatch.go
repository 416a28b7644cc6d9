package refresher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
)

// Headers by which JetStream recognises a message schedule.
const (
	headerSchedule       = "Nats-Schedule"
	headerScheduleTarget = "Nats-Schedule-Target"
)

// scheduleTime is the form of the time in a schedule, with milliseconds.
const scheduleTime = "2006-01-02T15:04:05.000Z07:00"

// Dispatcher sends the outbox of grants to JetStream: their events, and the
// schedule of their next action.
type Dispatcher struct {
	js       jetstream.JetStream
	store    *store.Store
	subjects events.Subjects
	// horizon is how far ahead schedules are put into the stream; what is due
	// later is brought in by reconciliation.
	horizon time.Duration
	now     func() time.Time
	log     *zap.Logger
	failed  prometheus.Counter
	// stream is the identity of the schedule stream.
	stream atomic.Value
	// Tracer is set before the first use.
	Tracer tracing.Tracer
}

// NewDispatcher returns a dispatcher that needs SetStream before it is used.
func NewDispatcher(js jetstream.JetStream, s *store.Store, subjects events.Subjects, horizon time.Duration, now func() time.Time, log *zap.Logger, reg prometheus.Registerer) *Dispatcher {
	d := &Dispatcher{js: js, store: s, subjects: subjects, horizon: horizon, now: now, log: log, failed: prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "latchkey", Name: "outbox_failures_total", Help: "Outboxes that could not be delivered at once; reconciliation delivers them.",
	})}
	reg.MustRegister(d.failed)
	d.stream.Store("")
	return d
}

// SetStream tells the identity of the schedule stream as it now exists.
func (d *Dispatcher) SetStream(identity string) { d.stream.Store(identity) }

// Stream returns the identity last set.
func (d *Dispatcher) Stream() string { return d.stream.Load().(string) }

// sendTimeout bounds Send, whose caller has other work.
const sendTimeout = 10 * time.Second

// Send delivers the outbox now or leaves it to reconciliation. It is not cut
// short by the end of ctx: what has been done is told while there is time.
func (d *Dispatcher) Send(ctx context.Context, g *store.Grant) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	defer cancel()
	if err := d.Deliver(ctx, g); err != nil {
		d.failed.Inc()
		tracing.Log(ctx, d.log).Warn("an outbox could not be delivered; reconciliation will", zap.String("grant", g.ID), zap.Error(err))
	}
}

// Deliver sends everything in the grant's outbox, waits until JetStream has
// acknowledged it, and then empties the outbox. After an error the outbox stays
// and may be delivered again: events carry a stable id, and a schedule
// replaces the one before it.
func (d *Dispatcher) Deliver(ctx context.Context, g *store.Grant) error {
	if g.Outbox == nil {
		return nil
	}
	stream := ""
	var acks []jetstream.PubAckFuture
	if g.Outbox.Schedule {
		ack, err := d.schedule(ctx, g)
		if err != nil {
			return err
		}
		if ack != nil {
			stream, acks = d.Stream(), append(acks, ack)
		}
	}
	for _, e := range g.Outbox.Events {
		msg := nats.NewMsg(e.Subject)
		msg.Data = e.Data
		msg.Header.Set("Content-Type", "application/cloudevents+json")
		ack, err := d.publish(ctx, msg, kindOf(e.Subject), e.Trace, tracing.Grant(g.ID, g.BrokerType, g.Version), jetstream.WithMsgID(e.ID))
		if err != nil {
			return fmt.Errorf("publishing an event of grant %s: %w", g.ID, err)
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		if err := await(ctx, ack); err != nil {
			return fmt.Errorf("publishing the outbox of grant %s: %w", g.ID, err)
		}
	}
	if g.State == store.Revoked {
		if err := d.shredCopies(ctx, g.ID); err != nil {
			return err
		}
		err := d.store.Delete(ctx, g)
		if errors.Is(err, store.ErrConflict) {
			return nil // connected anew meanwhile, or already gone
		}
		return err
	}
	return d.store.Sent(ctx, g, stream)
}

// schedule publishes the schedule of the grant's next action, or removes it
// where there is none. The future is nil when nothing was published.
func (d *Dispatcher) schedule(ctx context.Context, g *store.Grant) (jetstream.PubAckFuture, error) {
	if g.Due == nil {
		return nil, d.Unschedule(ctx, g.ID)
	}
	if g.Due.At.After(d.now().Add(d.horizon)) {
		return nil, nil
	}
	return d.publishSchedule(ctx, dueMessage(g), g.Due.At, g.Due.Trace)
}

// Later puts the message of a due action off to another time without touching
// the grant: the action is as due as before.
func (d *Dispatcher) Later(ctx context.Context, m events.RefreshDue, at time.Time) error {
	ack, err := d.publishSchedule(ctx, m, at, tracing.Carry(ctx))
	if err != nil {
		return err
	}
	return await(ctx, ack)
}

func (d *Dispatcher) publishSchedule(ctx context.Context, m events.RefreshDue, at time.Time, in tracing.Carried) (jetstream.PubAckFuture, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encoding the schedule of grant %s: %w", m.GrantID, err)
	}
	msg := nats.NewMsg(d.subjects.RefreshSchedule(m.GrantID))
	msg.Data = body
	msg.Header.Set(headerSchedule, "@at "+at.UTC().Format(scheduleTime))
	target := d.subjects.RefreshDue()
	if m.Unknown {
		target = d.subjects.RefreshUrgent()
	}
	msg.Header.Set(headerScheduleTarget, target)
	ack, err := d.publish(ctx, msg, "refresh.schedule", in, tracing.Grant(m.GrantID, m.BrokerType, m.Version))
	if err != nil {
		return nil, fmt.Errorf("scheduling grant %s: %w", m.GrantID, err)
	}
	return ack, nil
}

// Scheduled returns the schedule that the stream holds of a grant; false: none.
func (d *Dispatcher) Scheduled(ctx context.Context, grantID string) (events.RefreshDue, bool, error) {
	stream, err := d.js.Stream(ctx, d.subjects.RefreshStream())
	if err != nil {
		return events.RefreshDue{}, false, fmt.Errorf("looking for the schedule of grant %s: %w", grantID, err)
	}
	msg, err := stream.GetLastMsgForSubject(ctx, d.subjects.RefreshSchedule(grantID))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return events.RefreshDue{}, false, nil
	}
	if err != nil {
		return events.RefreshDue{}, false, fmt.Errorf("looking for the schedule of grant %s: %w", grantID, err)
	}
	m, err := events.DecodeRefreshDue(msg.Data)
	return m, err == nil, err
}

// Unschedule cancels a grant's schedule.
func (d *Dispatcher) Unschedule(ctx context.Context, grantID string) error {
	stream, err := d.js.Stream(ctx, d.subjects.RefreshStream())
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(d.subjects.RefreshSchedule(grantID)))
	}
	if err != nil {
		return fmt.Errorf("cancelling the schedule of grant %s: %w", grantID, err)
	}
	return nil
}

func await(ctx context.Context, ack jetstream.PubAckFuture) error {
	select {
	case <-ack.Ok():
		return nil
	case err := <-ack.Err():
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
