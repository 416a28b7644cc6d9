package streams

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// Found compares a stream or a durable consumer with the configuration.
type Found struct {
	// Name of the stream, or of the consumer.
	Name    string
	Missing bool
	// Differs lists the settings that are not as configured.
	Differs []string
	// Stream is nil for consumers.
	Stream *jetstream.StreamInfo
}

// Inspect compares the streams with the configuration and changes nothing.
func (s *Topology) Inspect(ctx context.Context) ([]Found, error) {
	var all []Found
	for _, want := range s.configs() {
		stream, err := s.js.Stream(ctx, want.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			all = append(all, Found{Name: want.Name, Missing: true})
			continue
		}
		if err != nil {
			return all, fmt.Errorf("looking at stream %s: %w", want.Name, err)
		}
		info := stream.CachedInfo()
		all = append(all, Found{Name: want.Name, Differs: streamDiffers(want, info.Config), Stream: info})
	}
	return all, nil
}

func streamDiffers(want, is jetstream.StreamConfig) []string {
	slices.Sort(want.Subjects)
	subjects := slices.Sorted(slices.Values(is.Subjects))
	var d differences
	d.add("subjects", slices.Equal(want.Subjects, subjects))
	d.add("retention", want.Retention == is.Retention)
	d.add("storage", want.Storage == is.Storage)
	d.add("replicas", want.Replicas == is.Replicas)
	d.add("max_age", want.MaxAge == is.MaxAge)
	d.add("duplicate_window", want.Duplicates == 0 || want.Duplicates == is.Duplicates)
	d.add("allow_msg_schedules", want.AllowMsgSchedules == is.AllowMsgSchedules)
	d.add("deny_delete", want.DenyDelete == is.DenyDelete)
	d.add("deny_purge", want.DenyPurge == is.DenyPurge)
	return d
}

// differences are names of settings.
type differences []string

func (d *differences) add(setting string, same bool) {
	if !same {
		*d = append(*d, setting)
	}
}

// InspectConsumers compares the durable consumers and changes nothing.
func (s *Topology) InspectConsumers(ctx context.Context) ([]Found, error) {
	var all []Found
	for _, c := range s.queues() {
		consumer, err := s.js.Consumer(ctx, c.stream, Durable(c.subject))
		if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
			all = append(all, Found{Name: Durable(c.subject), Missing: true})
			continue
		}
		if err != nil {
			return all, fmt.Errorf("looking at consumer %s of %s: %w", Durable(c.subject), c.stream, err)
		}
		is := consumer.CachedInfo().Config
		var d differences
		d.add("filter_subject", is.FilterSubject == c.subject)
		d.add("ack_policy", is.AckPolicy == jetstream.AckExplicitPolicy)
		d.add("ack_wait", is.AckWait == s.messages.AckWait)
		d.add("max_deliver", is.MaxDeliver == -1)
		all = append(all, Found{Name: Durable(c.subject), Differs: d})
	}
	return all, nil
}
