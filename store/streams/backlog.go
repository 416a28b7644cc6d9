package streams

import (
	"context"
	"fmt"
)

// Backlog is what waits on one subject for all workers together.
type Backlog struct {
	Subject string
	// Waiting messages were not yet given to a worker, InHand ones are with a
	// worker. Redelivered ones among these were there before.
	Waiting, InHand, Redelivered int
}

// Backlogs returns what waits on every subject that workers read.
func (s *Topology) Backlogs(ctx context.Context) ([]Backlog, error) {
	var out []Backlog
	for _, q := range s.queues() {
		consumer, err := s.js.Consumer(ctx, q.stream, Durable(q.subject))
		if err != nil {
			return nil, fmt.Errorf("looking at what waits on %s: %w", q.subject, err)
		}
		info := consumer.CachedInfo()
		out = append(out, Backlog{Subject: q.subject, Waiting: int(info.NumPending), InHand: info.NumAckPending, Redelivered: info.NumRedelivered})
	}
	return out, nil
}
