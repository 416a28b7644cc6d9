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

// A schedule for one time, and the form of that time, with milliseconds.
const (
	scheduleAt   = "@at "
	scheduleTime = "2006-01-02T15:04:05.000Z07:00"
)

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
	// streams are the identities of the schedule streams, by partition.
	streams atomic.Pointer[[]string]
	// Tracer is set before the first use.
	Tracer tracing.Tracer
}

// NewDispatcher returns a dispatcher that needs SetStreams before it is used.
func NewDispatcher(js jetstream.JetStream, s *store.Store, subjects events.Subjects, horizon time.Duration, now func() time.Time, log *zap.Logger, reg prometheus.Registerer) *Dispatcher {
	d := &Dispatcher{js: js, store: s, subjects: subjects, horizon: horizon, now: now, log: log, failed: prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "latchkey", Name: "outbox_failures_total", Help: "Outboxes that could not be delivered at once; reconciliation delivers them.",
	})}
	reg.MustRegister(d.failed)
	d.streams.Store(&[]string{})
	return d
}

// SetStreams tells the identities of the schedule streams as they now exist, in
// the order of the partitions.
func (d *Dispatcher) SetStreams(identities []string) { d.streams.Store(&identities) }

// Streams returns the identities last set.
func (d *Dispatcher) Streams() []string { return *d.streams.Load() }

// Stream returns the identity of the stream in which a grant is scheduled;
// empty where none was set.
func (d *Dispatcher) Stream(grantID string) string {
	if n, all := d.subjects.PartitionOf(grantID), d.Streams(); n < len(all) {
		return all[n]
	}
	return ""
}

// sendTimeout bounds Send, whose caller has other work.
const sendTimeout = 10 * time.Second

// Send delivers the outbox now or leaves it to reconciliation. It is not cut
// short by the end of ctx: what has been done is told while there is time.
func (d *Dispatcher) Send(ctx context.Context, g *store.Grant) {
	_ = d.Tell(ctx, g) // fails for what is held only
}

// Hold spares a grant that is about to be saved the writing of its outbox, and
// the second write that would empty it. The caller holds the message that made
// the change, and acknowledges it only when Tell has returned nil.
func (d *Dispatcher) Hold(g *store.Grant) {
	g.Outbox.Held = true
	if g.Due != nil && !d.beyond(g.Due) {
		g.Due.Stream = d.Stream(g.ID)
	}
}

// Tell is Send for an outbox that may be held: if it can't be delivered now, it
// is written for reconciliation. An error means that neither was possible, and
// that the message held must come again.
func (d *Dispatcher) Tell(ctx context.Context, g *store.Grant) error {
	ctx = context.WithoutCancel(ctx)
	sending, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	err := d.Deliver(sending, g)
	if err == nil {
		return nil
	}
	d.failed.Inc()
	tracing.Log(ctx, d.log).Warn("an outbox could not be delivered; reconciliation will", zap.String("grant", g.ID), zap.Error(err))
	if !g.Outbox.Held {
		return nil
	}
	return d.store.Owe(ctx, g)
}

// Retell sends the event of a version of a grant, and the schedule of its next
// action, which an earlier delivery of the message at hand may have left
// untold. The event has the id that it had then. After an error the message has
// to come again.
func (d *Dispatcher) Retell(ctx context.Context, a Announcer, g *store.Grant, version int64, kind string) error {
	next := g.Clone()
	next.Outbox, next.Version = nil, version
	if err := a.Announce(next, kind, ""); err != nil {
		return err
	}
	next.Version = g.Version
	if awaits(g, d.now()) {
		a.Schedule(next, next.Due)
	}
	next.Outbox.Held = true // what the grant's own outbox holds is for reconciliation
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	defer cancel()
	return d.Deliver(ctx, next)
}

// Deliver sends everything in the grant's outbox, waits until JetStream has
// acknowledged it, and then empties the outbox, unless it is held. After an
// error the outbox stays and may be delivered again: events carry a stable id,
// and a schedule replaces the one before it.
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
			stream, acks = d.Stream(g.ID), append(acks, ack)
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
	if g.Outbox.Held {
		return nil
	}
	return d.store.Sent(ctx, g, stream)
}

// schedule publishes the schedule of the grant's next action, or removes it
// where there is none. The future is nil when nothing was published.
func (d *Dispatcher) schedule(ctx context.Context, g *store.Grant) (jetstream.PubAckFuture, error) {
	if g.Due == nil {
		return nil, d.Unschedule(ctx, g.ID)
	}
	if d.beyond(g.Due) {
		return nil, nil
	}
	return d.publishSchedule(ctx, dueMessage(g), g.Due.At, g.Due.Trace)
}

// beyond reports whether an action is due so late that its schedule need not
// lie in the stream yet.
func (d *Dispatcher) beyond(due *store.Due) bool { return due.At.After(d.now().Add(d.horizon)) }

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
	partition := d.subjects.RefreshPartition(m.GrantID)
	msg := nats.NewMsg(partition.Schedule(m.GrantID))
	msg.Data = body
	msg.Header.Set(headerSchedule, scheduleAt+at.UTC().Format(scheduleTime))
	target := partition.Due
	if m.Unknown {
		target = partition.Urgent
	}
	msg.Header.Set(headerScheduleTarget, target)
	ack, err := d.publish(ctx, msg, "refresh.schedule", in, tracing.Grant(m.GrantID, m.BrokerType, m.Version))
	if err != nil {
		return nil, fmt.Errorf("scheduling grant %s: %w", m.GrantID, err)
	}
	return ack, nil
}

// Scheduled returns the schedule that the stream holds of a grant, and when its
// message comes (zero: it does not say); false: there is none. The error of one
// that can't be read is an *events.InvalidError.
func (d *Dispatcher) Scheduled(ctx context.Context, grantID string) (m events.RefreshDue, at time.Time, found bool, err error) {
	partition := d.subjects.RefreshPartition(grantID)
	stream, err := d.js.Stream(ctx, partition.Stream)
	if err != nil {
		return m, at, false, fmt.Errorf("looking for the schedule of grant %s: %w", grantID, err)
	}
	msg, err := stream.GetLastMsgForSubject(ctx, partition.Schedule(grantID))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return m, at, false, nil
	}
	if err != nil {
		return m, at, false, fmt.Errorf("looking for the schedule of grant %s: %w", grantID, err)
	}
	if m, err = events.DecodeRefreshDue(msg.Data); err != nil {
		return m, at, false, err
	}
	at, _ = time.Parse(scheduleAt+scheduleTime, msg.Header.Get(headerSchedule)) // zero beside an error
	return m, at, true, nil
}

// Unschedule cancels a grant's schedule.
func (d *Dispatcher) Unschedule(ctx context.Context, grantID string) error {
	partition := d.subjects.RefreshPartition(grantID)
	stream, err := d.js.Stream(ctx, partition.Stream)
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(partition.Schedule(grantID)))
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
