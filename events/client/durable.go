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

// askEvery is how often a subscription asks NATS how far it is, and how many streams there
// are. If its consumer is lost, the events since then come again.
const askEvery = time.Minute

// receiveDurable handles events of a durable consumer until that is lost or ctx ends.
func (p *part) receiveDurable(ctx context.Context, begun func(time.Time)) error {
	consumer, err := p.consumer(ctx)
	if err != nil {
		return err
	}
	info := consumer.CachedInfo()
	if err := p.note(info); err != nil {
		return err
	}
	// One at a time, because the ack wait of messages in a local buffer would run out.
	messages, err := consumer.Messages(jetstream.PullMaxMessages(1), jetstream.PullHeartbeat(heartbeat), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return err
	}
	defer messages.Stop()
	begun(info.Created)
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if errors.Is(err, jetstream.ErrNoHeartbeat) {
			if err = p.ask(ctx, consumer); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		p.deliver(ctx, msg)
		if p.c.now().Sub(p.asked) > askEvery {
			if err := p.ask(ctx, consumer); err != nil {
				return err
			}
		}
	}
}

// consumer returns the durable consumer, and creates it if there is none. It changes none,
// because others may share it.
func (p *part) consumer(ctx context.Context) (jetstream.Consumer, error) {
	start, err := p.start(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	consumer, err := p.c.js.CreateConsumer(ctx, p.stream, jetstream.ConsumerConfig{
		Durable: p.s.Durable, FilterSubjects: p.filters, DeliverPolicy: start.policy, OptStartSeq: start.seq, OptStartTime: start.time,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: p.s.AckWait, MaxDeliver: -1,
	})
	if !errors.Is(err, jetstream.ErrConsumerExists) {
		return consumer, err
	}
	consumer, err = p.c.js.Consumer(ctx, p.stream, p.s.Durable)
	if errors.Is(err, jetstream.ErrNotPullConsumer) {
		return nil, fmt.Errorf("%w: %q is a push consumer", ErrDurable, p.s.Durable)
	}
	if err != nil {
		return nil, err
	}
	return consumer, nil
}

// differences names what has events handled otherwise than this subscription asks for.
// Where the consumer began is over, and everything else is up to whoever made it.
func (p *part) differences(have jetstream.ConsumerConfig) (found []string) {
	filters := slices.Sorted(slices.Values(have.FilterSubjects))
	if have.FilterSubject != "" {
		filters = []string{have.FilterSubject}
	}
	if want := slices.Sorted(slices.Values(p.filters)); !slices.Equal(filters, want) {
		found = append(found, fmt.Sprintf("the filter subjects %q, not %q", filters, want))
	}
	if have.AckPolicy != jetstream.AckExplicitPolicy {
		found = append(found, fmt.Sprintf("the ack policy %s, not %s", have.AckPolicy, jetstream.AckExplicitPolicy))
	}
	if have.AckWait != p.s.AckWait {
		found = append(found, fmt.Sprintf("an ack wait of %s, not %s", have.AckWait, p.s.AckWait))
	}
	if have.MaxDeliver > 0 {
		found = append(found, fmt.Sprintf("at most %d deliveries, not any number", have.MaxDeliver))
	}
	if have.HeadersOnly {
		found = append(found, "headers only, not events")
	}
	return found
}

// ask has NATS say how far the consumer is.
func (p *part) ask(ctx context.Context, consumer jetstream.Consumer) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	info, err := consumer.Info(ctx)
	if err != nil {
		return err
	}
	return p.note(info)
}

// note keeps how far the consumer is, unless it is another than this subscription's.
func (p *part) note(info *jetstream.ConsumerInfo) error {
	if found := p.differences(info.Config); len(found) > 0 {
		return fmt.Errorf("%w: %q has %s", ErrDurable, p.s.Durable, strings.Join(found, "; "))
	}
	p.done, p.told, p.asked = info.AckFloor.Stream, info.TimeStamp, p.c.now()
	return nil
}

// deliver handles a message and acknowledges it, even if ctx ends meanwhile. It signals
// progress also while the message waits for its turn.
func (p *part) deliver(ctx context.Context, msg jetstream.Msg) {
	e, err := p.c.event(msg)
	if err != nil {
		err = msg.TermWithReason("not a lifecycle event")
	} else if err = signalProgress(p.s.AckWait, msg, func() error { return p.handle(ctx, e) }); errors.Is(err, errEnded) {
		err = msg.Nak() // for another subscriber
	} else if err != nil {
		p.c.onError(fmt.Errorf("handling %s %s: %w", e.Kind, e.ID, err))
		err = msg.NakWithDelay(redeliveryDelay(msg))
	} else {
		err = msg.Ack()
	}
	if err != nil {
		p.c.onError(fmt.Errorf("acknowledging an event: %w", err))
	}
}
