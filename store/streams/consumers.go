package streams

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Consumer ensures the durable consumer of one subject.
func (s *Topology) Consumer(ctx context.Context, stream, subject string) (jetstream.Consumer, error) {
	c, err := s.js.CreateOrUpdateConsumer(ctx, stream, jetstream.ConsumerConfig{
		Durable:       Durable(subject),
		FilterSubject: subject,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       s.messages.AckWait,
		// The bound on tries is the handlers' (a message past it becomes a dead
		// letter); the server's would drop it without a word.
		MaxDeliver: -1,
		// So is the bound on messages under way. The server's counts those that
		// wait to come back, too: enough of them would hold up all others.
		MaxAckPending: -1,
	})
	if err != nil {
		return nil, fmt.Errorf("ensuring the consumer of %s: %w", subject, err)
	}
	return c, nil
}

// Durable names the consumer of a subject.
func Durable(subject string) string {
	return "latchkey-" + strings.NewReplacer(".", "-", "*", "all").Replace(subject)
}

// queue is a subject that workers read, and its stream.
type queue struct{ stream, subject string }

// queues lists every subject that workers read.
func (s *Topology) queues() []queue {
	all := []queue{
		{s.subjects.IntegrationStream(), s.subjects.Connected()},
		{s.subjects.IntegrationStream(), s.subjects.Disconnected()},
	}
	for _, p := range s.subjects.RefreshPartitions() {
		all = append(all, queue{p.Stream, p.Due}, queue{p.Stream, p.Urgent})
	}
	return append(all, queue{s.subjects.RecoveryStream(), s.subjects.RecoveryAll()})
}
