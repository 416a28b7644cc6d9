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
	"golang.org/x/sync/semaphore"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
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

// DispatcherOptions for NewDispatcher. Subjects, Remember and Tracer may be zero.
type DispatcherOptions struct {
	JetStream jetstream.JetStream
	Store     *store.Store
	Subjects  events.Subjects
	// Horizon is how far ahead schedules are made; reconciliation makes later ones.
	Horizon time.Duration
	// Remember is how long the refresh token of a deleted grant is remembered as spent.
	Remember time.Duration
	Now      func() time.Time
	Log      *zap.Logger
	Metrics  prometheus.Registerer
	Tracer   tracing.Tracer // the zero value starts no spans
}

// Dispatcher sends the outbox of grants to JetStream: their events, and the
// schedule of their next action.
type Dispatcher struct {
	options DispatcherOptions
	failed  prometheus.Counter
	// streams are the identities of the schedule streams, by partition.
	streams atomic.Pointer[[]string]
	clock   serverClock
	sending *semaphore.Weighted // a place for each Send under way
}

// NewDispatcher returns a dispatcher. Its schedules name no stream before SetStreams.
func NewDispatcher(o DispatcherOptions) (*Dispatcher, error) {
	if err := options.Require("a dispatcher", o, "JetStream", "Store", "Horizon", "Now", "Log", "Metrics"); err != nil {
		return nil, err
	}
	d := &Dispatcher{options: o, sending: semaphore.NewWeighted(maxSending), failed: prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "latchkey", Name: "outbox_failures_total", Help: "Outboxes that could not be delivered at once; reconciliation delivers them.",
	})}
	o.Metrics.MustRegister(d.failed)
	d.streams.Store(&[]string{})
	return d, nil
}

// SetStreams notes the identities of the schedule streams, in the order of the partitions, which
// every pass of reconciliation finds out: a wiped NATS has others.
func (d *Dispatcher) SetStreams(identities []string) { d.streams.Store(&identities) }

// Streams returns the identities last set.
func (d *Dispatcher) Streams() []string { return *d.streams.Load() }

// Stream returns the identity of the stream for a grant's schedule; empty: none was set.
func (d *Dispatcher) Stream(grantID string) string {
	if n, all := d.options.Subjects.PartitionOf(grantID), d.Streams(); n < len(all) {
		return all[n]
	}
	return ""
}

const (
	sendTimeout = 10 * time.Second // for the delivery of one outbox
	// maxSending is how many outboxes are delivered in the background at once. Where NATS
	// or MongoDB can't keep up with more, the refreshes wait.
	maxSending = 128
)

// Send publishes the outbox of a grant that was just saved, whatever becomes of ctx. It waits
// for acknowledgements only for a revoked grant, whose record is then deleted, or if too many
// are outstanding: reconciliation publishes what is not acknowledged.
func (d *Dispatcher) Send(ctx context.Context, g *store.Grant) {
	if g.Outbox == nil {
		return
	}
	ctx = context.WithoutCancel(ctx)
	_ = d.sending.Acquire(ctx, 1) // each place is free again after sendTimeout
	limited, cancel := context.WithTimeout(ctx, sendTimeout)
	sent, err := d.publishOutbox(limited, g)
	finish := func() {
		defer d.sending.Release(1)
		defer cancel()
		if err == nil {
			err = d.finish(limited, g, sent)
		}
		if err != nil {
			d.failed.Inc()
			tracing.Log(ctx, d.options.Log).Warn("an outbox could not be delivered; reconciliation will", zap.String("grant", g.ID), zap.Error(err))
		}
	}
	if g.State == store.Revoked {
		finish()
		return
	}
	go finish()
}

// Wait returns when what Send began is done, or left to reconciliation.
func (d *Dispatcher) Wait() {
	_ = d.sending.Acquire(context.Background(), maxSending)
	d.sending.Release(maxSending)
}

// Deliver publishes the outbox of a grant and clears it. After an error the outbox stays
// and may be delivered again: events have stable ids, and a schedule replaces the last.
func (d *Dispatcher) Deliver(ctx context.Context, g *store.Grant) error {
	if g.Outbox == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	sent, err := d.publishOutbox(ctx, g)
	if err != nil {
		return err
	}
	return d.finish(ctx, g, sent)
}

// published is an outbox on its way to JetStream.
type published struct {
	acks   []jetstream.PubAckFuture
	stream string // the identity of the schedule's stream; empty: the outbox has none
}

func (d *Dispatcher) publishOutbox(ctx context.Context, g *store.Grant) (out published, err error) {
	if len(g.Outbox.Events) > 0 { // what they tell is out of date in memory; workers learn it first
		_ = d.options.JetStream.Conn().Publish(d.options.Subjects.Changed(g.UserID), nil) // a hint, which keeps no outbox back
	}
	if g.Outbox.Schedule {
		ack, err := d.schedule(ctx, g)
		if err != nil {
			return out, err
		}
		if ack != nil {
			out.stream, out.acks = d.Stream(g.ID), append(out.acks, ack)
		}
	}
	for _, e := range g.Outbox.Events {
		msg := nats.NewMsg(d.options.Subjects.PublishedLifecycle(e.Subject))
		if msg.Data, err = events.ShrinkLifecycle(e.Data, int(d.options.JetStream.Conn().MaxPayload())-headerRoom); err != nil {
			return out, fmt.Errorf("publishing an event of grant %s: %w", g.ID, err)
		}
		msg.Header.Set("Content-Type", "application/cloudevents+json")
		ack, err := d.publish(ctx, msg, kindOf(e.Subject), e.Trace, tracing.Grant(g.ID, g.BrokerType, g.Version), jetstream.WithMsgID(e.ID))
		if err != nil {
			return out, fmt.Errorf("publishing an event of grant %s: %w", g.ID, err)
		}
		out.acks = append(out.acks, ack)
	}
	return out, nil
}

// finish waits until JetStream has acknowledged everything, and then clears the outbox,
// or deletes the record of a revoked grant.
func (d *Dispatcher) finish(ctx context.Context, g *store.Grant, sent published) error {
	for _, ack := range sent.acks {
		if err := await(ctx, ack); err != nil {
			return fmt.Errorf("publishing the outbox of grant %s: %w", g.ID, err)
		}
	}
	if g.State != store.Revoked {
		return d.options.Store.ClearOutbox(ctx, g, sent.stream)
	}
	if err := d.deleteCopies(ctx, g); err != nil {
		return err
	}
	if g.Removal != nil { // it is needed for that
		return d.options.Store.ClearOutbox(ctx, g, "")
	}
	err := d.options.Store.Delete(ctx, g)
	if errors.Is(err, store.ErrConflict) {
		return nil // connected anew meanwhile, or already gone
	}
	return err
}

// schedule publishes the schedule of the grant's next action, or removes it where there
// is none. The future is nil when nothing was published.
func (d *Dispatcher) schedule(ctx context.Context, g *store.Grant) (jetstream.PubAckFuture, error) {
	if g.Due == nil {
		return nil, d.Unschedule(ctx, g.ID)
	}
	if g.Due.At.After(d.options.Now().Add(d.options.Horizon)) {
		return nil, nil
	}
	return d.publishSchedule(ctx, dueMessage(g), g.Due.At, g.Due.Trace)
}

// Postpone postpones the message of an action, which stays as due as it is in the grant.
func (d *Dispatcher) Postpone(ctx context.Context, m events.RefreshDue, at time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	ack, err := d.publishSchedule(ctx, m, at, tracing.FromContext(ctx))
	if err != nil {
		return err
	}
	return await(ctx, ack)
}

func (d *Dispatcher) publishSchedule(ctx context.Context, m events.RefreshDue, at time.Time, in tracing.TraceContext) (jetstream.PubAckFuture, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encoding the schedule of grant %s: %w", m.GrantID, err)
	}
	partition := d.options.Subjects.RefreshPartition(m.GrantID)
	msg := nats.NewMsg(partition.Schedule(m.GrantID))
	msg.Data = body
	msg.Header.Set(headerSchedule, scheduleAt+at.Add(d.clock.ahead(d.options.Now())).UTC().Format(scheduleTime))
	if m.Call {
		msg.Header.Set(events.HeaderCall, "1")
	}
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

// Scheduled returns the schedule of a grant in the stream, and when its message comes
// (zero: not known). The error of an unreadable one is an *events.InvalidError.
func (d *Dispatcher) Scheduled(ctx context.Context, grantID string) (m events.RefreshDue, at time.Time, found bool, err error) {
	partition := d.options.Subjects.RefreshPartition(grantID)
	var msg *jetstream.RawStreamMsg
	stream, err := d.options.JetStream.Stream(ctx, partition.Stream)
	if err == nil {
		msg, err = stream.GetLastMsgForSubject(ctx, partition.Schedule(grantID))
	}
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
	partition := d.options.Subjects.RefreshPartition(grantID)
	stream, err := d.options.JetStream.Stream(ctx, partition.Stream)
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
