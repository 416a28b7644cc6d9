package streams

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Found compares a stream or a durable consumer with what Latchkey makes of it.
type Found struct {
	// Name of the stream, or of the consumer.
	Name    string
	Missing bool
	// Differs lists what is not as workers need it or as the configuration wants it.
	Differs []Difference
	// Kept names what others set on a stream, which stays.
	Kept []string
	// Stream is nil for consumers.
	Stream *jetstream.StreamInfo
}

// Unfit reports whether a worker can't do without something that differs.
func (f Found) Unfit() bool { return len(differences(f.Differs).needed()) > 0 }

// Text names what differs.
func (f Found) Text() string { return differences(f.Differs).String() }

// Inspect compares the streams with the configuration and changes nothing.
func (s *Topology) Inspect(ctx context.Context) ([]Found, error) {
	var all []Found
	for _, want := range s.needed() {
		found, err := s.inspect(ctx, want)
		if err != nil {
			return all, err
		}
		all = append(all, found)
	}
	return all, nil
}

func (s *Topology) inspect(ctx context.Context, want jetstream.StreamConfig) (Found, error) {
	stream, err := s.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return Found{Name: want.Name, Missing: true}, nil
	}
	if err != nil {
		return Found{}, fmt.Errorf("looking at stream %s: %w", want.Name, err)
	}
	info := stream.CachedInfo()
	_, differ := s.own(want, info.Config)
	return Found{Name: want.Name, Differs: differ, Kept: kept(want, info.Config), Stream: info}, nil
}

// InspectConsumers compares the durable consumers and changes nothing.
func (s *Topology) InspectConsumers(ctx context.Context) ([]Found, error) {
	var all []Found
	for _, q := range s.queues() {
		found, err := s.inspectConsumer(ctx, q)
		if err != nil {
			return all, err
		}
		all = append(all, found)
	}
	return all, nil
}

func (s *Topology) inspectConsumer(ctx context.Context, q queue) (Found, error) {
	consumer, err := s.js.Consumer(ctx, q.stream, Durable(q.subject))
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return Found{Name: Durable(q.subject), Missing: true}, nil
	}
	if err != nil {
		return Found{}, fmt.Errorf("looking at consumer %s of %s: %w", Durable(q.subject), q.stream, err)
	}
	_, differ := s.ownConsumer(s.consumerConfig(q.subject), consumer.CachedInfo().Config)
	return Found{Name: Durable(q.subject), Differs: differ}, nil
}
