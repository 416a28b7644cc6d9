package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrDurable: the durable consumer exists, and its settings are not those of the
// subscription. The error names each difference.
var ErrDurable = errors.New("the durable consumer has other settings")

// durable is a subscription with a durable consumer.
type durable struct {
	c       *Client
	s       Subscription
	filters []string
	handle  Handler
	// done is a sequence of the stream up to which every event was acknowledged at told, a
	// time of the server; told is zero before the consumer was first seen. Asked is when
	// that was by the clock of this process.
	done  uint64
	told  time.Time
	asked time.Time
}

// askEvery is how often a subscription asks NATS how far it is. If its consumer is lost,
// the events since then come again.
const askEvery = time.Minute

// receive handles events until the consumer is lost or ctx ends.
func (d *durable) receive(ctx context.Context, begun func()) error {
	consumer, err := d.consumer(ctx)
	if err != nil {
		return err
	}
	if err := d.note(consumer.CachedInfo()); err != nil {
		return err
	}
	// One at a time, because the ack wait of messages in a local buffer would run out.
	messages, err := consumer.Messages(jetstream.PullMaxMessages(1), jetstream.PullHeartbeat(heartbeat), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return err
	}
	defer messages.Stop()
	begun()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if errors.Is(err, jetstream.ErrNoHeartbeat) {
			if err = d.ask(ctx, consumer); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		d.deliver(ctx, msg)
		if d.c.now().Sub(d.asked) > askEvery {
			if err := d.ask(ctx, consumer); err != nil {
				return err
			}
		}
	}
}

// consumer returns the durable consumer, and creates it if there is none. It changes none,
// because others may share it.
func (d *durable) consumer(ctx context.Context) (jetstream.Consumer, error) {
	stream := d.c.subjects.LifecycleStream()
	policy, first := d.start(ctx)
	consumer, err := d.c.js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
		Durable: d.s.Durable, FilterSubjects: d.filters, DeliverPolicy: policy, OptStartSeq: first,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: d.s.AckWait, MaxDeliver: -1,
	})
	if !errors.Is(err, jetstream.ErrConsumerExists) {
		return consumer, err
	}
	consumer, err = d.c.js.Consumer(ctx, stream, d.s.Durable)
	if errors.Is(err, jetstream.ErrNotPullConsumer) {
		return nil, fmt.Errorf("%w: %q is a push consumer", ErrDurable, d.s.Durable)
	}
	if err != nil {
		return nil, err
	}
	return consumer, nil
}

// differences names what has events handled otherwise than this subscription asks for.
// Where the consumer began is over, and everything else is up to whoever made it.
func (d *durable) differences(have jetstream.ConsumerConfig) (found []string) {
	filters := slices.Sorted(slices.Values(have.FilterSubjects))
	if have.FilterSubject != "" {
		filters = []string{have.FilterSubject}
	}
	if want := slices.Sorted(slices.Values(d.filters)); !slices.Equal(filters, want) {
		found = append(found, fmt.Sprintf("the filter subjects %q, not %q", filters, want))
	}
	if have.AckPolicy != jetstream.AckExplicitPolicy {
		found = append(found, fmt.Sprintf("the ack policy %s, not %s", have.AckPolicy, jetstream.AckExplicitPolicy))
	}
	if have.AckWait != d.s.AckWait {
		found = append(found, fmt.Sprintf("an ack wait of %s, not %s", have.AckWait, d.s.AckWait))
	}
	if have.MaxDeliver > 0 {
		found = append(found, fmt.Sprintf("at most %d deliveries, not any number", have.MaxDeliver))
	}
	if have.HeadersOnly {
		found = append(found, "headers only, not events")
	}
	return found
}

// start says where a new consumer begins: where a lost one was, if this subscription knows.
// If it can't know, an event comes rather twice than never.
func (d *durable) start(ctx context.Context) (policy jetstream.DeliverPolicy, first uint64) {
	if d.told.IsZero() {
		return d.s.deliverPolicy(), 0
	}
	stream, err := d.c.js.Stream(ctx, d.c.subjects.LifecycleStream())
	if err != nil {
		return jetstream.DeliverAllPolicy, 0
	}
	// A stream that was created since counts from 1 again, and a restored one from before.
	if info := stream.CachedInfo(); info.Created.After(d.told) || info.State.LastSeq < d.done {
		return jetstream.DeliverAllPolicy, 0
	}
	return jetstream.DeliverByStartSequencePolicy, d.done + 1
}

// ask has NATS say how far the consumer is.
func (d *durable) ask(ctx context.Context, consumer jetstream.Consumer) error {
	info, err := consumer.Info(ctx)
	if err != nil {
		return err
	}
	return d.note(info)
}

// note keeps how far the consumer is, unless it is another than this subscription's.
func (d *durable) note(info *jetstream.ConsumerInfo) error {
	if found := d.differences(info.Config); len(found) > 0 {
		return fmt.Errorf("%w: %q has %s", ErrDurable, d.s.Durable, strings.Join(found, "; "))
	}
	d.done, d.told, d.asked = info.AckFloor.Stream, info.TimeStamp, d.c.now()
	return nil
}

// deliver handles a message and acknowledges it, even if ctx ends meanwhile.
func (d *durable) deliver(ctx context.Context, msg jetstream.Msg) {
	e, err := d.c.event(msg)
	if err != nil {
		err = msg.TermWithReason("not a lifecycle event")
	} else if err = signalProgress(d.s.AckWait, msg, func() error { return d.handle(ctx, e) }); err != nil {
		d.c.onError(fmt.Errorf("handling %s %s: %w", e.Kind, e.ID, err))
		err = msg.NakWithDelay(redeliveryDelay(msg))
	} else {
		err = msg.Ack()
	}
	if err != nil {
		d.c.onError(fmt.Errorf("acknowledging an event: %w", err))
	}
}
