package client

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

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
	messages, err := consumer.Messages(jetstream.PullMaxMessages(p.buffer))
	if err != nil {
		return err
	}
	defer messages.Stop()
	begun(p.since)
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
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
