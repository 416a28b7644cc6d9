package streams

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Consumer creates or updates the durable consumer of a subject.
func (s *Topology) Consumer(ctx context.Context, stream, subject string) (jetstream.Consumer, error) {
	c, err := s.ensureConsumer(ctx, stream, s.consumerConfig(subject))
	if err != nil {
		return nil, fmt.Errorf("ensuring the consumer of %s: %w", subject, err)
	}
	return c, nil
}

func (s *Topology) consumerConfig(subject string) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:       Durable(subject),
		FilterSubject: subject,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       s.messages.AckWait,
		// The handlers bound the attempts, and make dead letters; the server would
		// drop the message silently.
		MaxDeliver: -1,
		// The handlers bound the messages in hand too. The server's bound counts
		// those that wait for redelivery: enough of them would delay all others.
		MaxAckPending: -1,
	}
}

// Durable names the consumer of a subject.
func Durable(subject string) string {
	return "latchkey-" + strings.NewReplacer(".", "-", "*", "all").Replace(subject)
}

// queue is a subject that workers read.
type queue struct{ stream, subject string }

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

// Backlog counts the messages on one subject for all workers together.
type Backlog struct {
	Subject string `json:"subject"`
	// Pending messages are not delivered yet, AckPending ones are with a worker. Redelivered
	// counts those of the latter that were delivered before.
	Pending     int `json:"waiting"`
	AckPending  int `json:"inHand"`
	Redelivered int `json:"redelivered"`
}

// Backlogs returns the backlog of every subject that workers read.
func (s *Topology) Backlogs(ctx context.Context) ([]Backlog, error) {
	var out []Backlog
	for _, q := range s.queues() {
		consumer, err := s.js.Consumer(ctx, q.stream, Durable(q.subject))
		if err != nil {
			return nil, fmt.Errorf("counting what waits on %s: %w", q.subject, err)
		}
		info := consumer.CachedInfo()
		out = append(out, Backlog{Subject: q.subject, Pending: int(info.NumPending), AckPending: info.NumAckPending, Redelivered: info.NumRedelivered})
	}
	return out, nil
}
