package streams

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Inspection compares a stream or a durable consumer with what Latchkey makes of it.
type Inspection struct {
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
func (f Inspection) Unfit() bool { return len(differences(f.Differs).needed()) > 0 }

// Text names what differs.
func (f Inspection) Text() string { return differences(f.Differs).String() }

// Inspect compares the streams with the configuration and changes nothing.
func (s *Topology) Inspect(ctx context.Context) ([]Inspection, error) {
	var all []Inspection
	for _, want := range s.requiredStreams() {
		found, err := s.inspect(ctx, want)
		if err != nil {
			return all, err
		}
		all = append(all, found)
	}
	return all, nil
}

func (s *Topology) inspect(ctx context.Context, want jetstream.StreamConfig) (Inspection, error) {
	stream, err := s.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return Inspection{Name: want.Name, Missing: true}, nil
	}
	if err != nil {
		return Inspection{}, fmt.Errorf("inspecting stream %s: %w", want.Name, err)
	}
	info := stream.CachedInfo()
	_, differ := s.withOwned(want, info.Config)
	return Inspection{Name: want.Name, Differs: differ, Kept: foreignSettings(want, info.Config), Stream: info}, nil
}

// InspectConsumers compares the durable consumers and changes nothing.
func (s *Topology) InspectConsumers(ctx context.Context) ([]Inspection, error) {
	var all []Inspection
	for _, q := range s.queues() {
		found, err := s.inspectConsumer(ctx, q)
		if err != nil {
			return all, err
		}
		all = append(all, found)
	}
	return all, nil
}

func (s *Topology) inspectConsumer(ctx context.Context, q queue) (Inspection, error) {
	consumer, err := s.js.Consumer(ctx, q.stream, Durable(q.subject))
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return Inspection{Name: Durable(q.subject), Missing: true}, nil
	}
	if err != nil {
		return Inspection{}, fmt.Errorf("inspecting consumer %s of %s: %w", Durable(q.subject), q.stream, err)
	}
	_, differ := s.consumerWithOwned(s.consumerConfig(q.subject), consumer.CachedInfo().Config)
	return Inspection{Name: Durable(q.subject), Differs: differ}, nil
}
