package streams

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
)

// lifecycle returns the streams of events. The first comes last: it says how many there are,
// and takes no event any more from the subjects of subscribers once there are others.
func (s *Topology) lifecycle() (all []jetstream.StreamConfig) {
	partitions := s.subjects.LifecyclePartitions()
	for _, p := range append(partitions[1:], partitions[0]) {
		c := jetstream.StreamConfig{
			Name: p.Stream, Description: "What happened to grants, for subscribers", Storage: jetstream.FileStorage, Replicas: s.nats.Replicas,
			AllowDirect: true, // for store/direct
			MaxAge:      s.retention.Events, MaxBytes: lifecycleBytes / int64(len(partitions)),
			Duplicates: min(10*time.Minute, s.retention.Events),
		}
		if p.Published == "" {
			for _, kind := range events.LifecycleKinds {
				c.Subjects = append(c.Subjects, s.subjects.LifecycleAll(kind))
			}
			c.Subjects = append(c.Subjects, s.subjects.RejectedAll())
		} else {
			c.Subjects = []string{p.Published}
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: p.Published, Destination: s.subjects.SubscribedLifecycle()}
			c.RePublish = s.passedOn()
		}
		if len(partitions) > 1 && p.Stream == s.subjects.LifecycleStream() {
			c.Metadata = map[string]string{events.PartitionsKey: strconv.Itoa(len(partitions))}
		}
		all = append(all, c)
	}
	return all
}

// passedOn has NATS publish what a partition stores to where plain subscriptions listen.
func (s *Topology) passedOn() *jetstream.RePublish {
	return &jetstream.RePublish{Source: s.subjects.StoredLifecycle(), Destination: s.subjects.SubscribedLifecycle()}
}

// Lifecycle returns the streams that hold events: the partitions of the installation, and
// those of an earlier, larger number that are still there.
func Lifecycle(ctx context.Context, js jetstream.JetStream, subjects events.Subjects) ([]jetstream.Stream, error) {
	first, err := js.Stream(ctx, subjects.LifecycleStream())
	if err != nil {
		return nil, fmt.Errorf("looking for stream %s: %w", subjects.LifecycleStream(), err)
	}
	all := []jetstream.Stream{first}
	now := len(subjects.LifecyclePartitions())
	metadata := first.CachedInfo().Config.Metadata
	named, ok := events.PartitionsIn(metadata)
	if !ok {
		return nil, fmt.Errorf("the metadata %s of stream %s are %q, not 1 to %d: a stream of events may be missed", events.PartitionsKey, subjects.LifecycleStream(), metadata[events.PartitionsKey], events.MaxPartitions)
	}
	subjects.Partitions = max(now, named)
	for n, p := range subjects.LifecyclePartitions() {
		if n == 0 {
			continue
		}
		stream, err := js.Stream(ctx, p.Stream)
		if errors.Is(err, jetstream.ErrStreamNotFound) && n >= now {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("looking for stream %s: %w", p.Stream, err)
		}
		all = append(all, stream)
	}
	return all, nil
}
