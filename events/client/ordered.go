package client

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// errReplaced: the library has made a new consumer. It continues by sequence alone, and so
// skips events of a stream that was made anew.
var errReplaced = errors.New("the consumer was replaced")

// replacedWithin bounds how long it goes unnoticed that the library has done so, where no event
// comes. The library misses heartbeats only if it waits for longer than two.
const replacedWithin = 3 * heartbeat

// receiveOrdered handles events in the stream's order until the consumer is lost, ctx ends or
// handle fails.
func (p *part) receiveOrdered(ctx context.Context, begun func(time.Time)) error {
	start, err := p.start(ctx)
	if err != nil {
		return err
	}
	creating, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	// One attempt, because the library's later ones tell nobody and don't end with ctx.
	consumer, err := p.c.js.OrderedConsumer(creating, p.stream, jetstream.OrderedConsumerConfig{
		FilterSubjects: p.filters, DeliverPolicy: start.policy, OptStartSeq: start.seq, OptStartTime: start.time, MaxResetAttempts: 1,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(p.buffer), jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return err
	}
	defer messages.Stop()
	name := consumer.CachedInfo().Name
	begun(p.since)
	for {
		within, cancel := context.WithTimeout(ctx, replacedWithin)
		msg, err := messages.Next(jetstream.NextContext(within))
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case consumer.CachedInfo().Name != name:
			return errReplaced
		case errors.Is(err, context.DeadlineExceeded):
			continue
		case err != nil:
			return err
		}
		if e, err := p.c.event(msg); err == nil {
			if err := p.handle(ctx, e); err != nil {
				return err
			}
		}
		if meta, err := msg.Metadata(); err == nil {
			p.done, p.told = meta.Sequence.Stream, meta.Timestamp
		}
	}
}
