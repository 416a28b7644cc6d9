package streams

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// Found is a stream or a durable consumer as it should be and as it is.
type Found struct {
	// Name of the stream, or of the consumer.
	Name    string
	Missing bool
	// Differs names the settings that are not as configured.
	Differs []string
	// Stream is what NATS says of the stream; nil for consumers.
	Stream *jetstream.StreamInfo
}

// Inspect looks at the streams and changes nothing.
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

// InspectConsumers looks at the durable consumers and changes nothing. How many
// messages each may have under way is not compared: that is up to each worker.
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
