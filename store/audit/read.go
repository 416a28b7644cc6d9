package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
)

// ErrNoLog: there is no audit log to read.
var ErrNoLog = errors.New("there is no audit log here")

// stored is a message in the stream.
type stored struct {
	sequence uint64
	at       time.Time
	subject  string
	body     []byte
}

// open returns the stream of the audit log and its state.
func open(ctx context.Context, js jetstream.JetStream, subjects events.Subjects) (jetstream.Stream, *jetstream.StreamInfo, error) {
	stream, err := js.Stream(ctx, subjects.AuditStream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil, fmt.Errorf("%w: no stream %s; has a worker run, with the same nats.url and nats.prefix?", ErrNoLog, subjects.AuditStream())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("looking for the audit log: %w", err)
	}
	return stream, stream.CachedInfo(), nil
}

// readTimeout bounds the wait for one message. It leaves the client time to pull again
// after an answer was lost.
const readTimeout = 30 * time.Second

// read passes the messages stored since a time (zero: all) to each, up to the last one in
// info.
func read(ctx context.Context, stream jetstream.Stream, info *jetstream.StreamInfo, since time.Time, each func(stored) error) error {
	if info.State.Msgs == 0 || info.State.LastTime.Before(since) {
		return nil
	}
	cfg := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}
	if !since.IsZero() {
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &since
	}
	consumer, err := stream.OrderedConsumer(ctx, cfg)
	if err != nil {
		return fmt.Errorf("reading the audit log: %w", err)
	}
	if begun, err := consumer.Info(ctx); err != nil {
		return fmt.Errorf("reading the audit log: %w", err)
	} else if begun.NumPending == 0 {
		return nil
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(1000))
	if err != nil {
		return fmt.Errorf("reading the audit log: %w", err)
	}
	defer messages.Stop()
	for {
		waiting, cancel := context.WithTimeout(ctx, readTimeout)
		msg, err := messages.Next(jetstream.NextContext(waiting))
		cancel()
		if err != nil {
			return fmt.Errorf("reading the audit log: %w", err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("reading the audit log: %w", err)
		}
		if meta.Sequence.Stream > info.State.LastSeq {
			return nil
		}
		if err := each(stored{meta.Sequence.Stream, meta.Timestamp, msg.Subject(), msg.Data()}); err != nil {
			return err
		}
		if meta.Sequence.Stream == info.State.LastSeq || meta.NumPending == 0 {
			return nil
		}
	}
}

// Entry is a record with its place in the log.
type Entry struct {
	Record
	Worker   string `json:"worker"`
	Chain    string `json:"chain"`
	Number   uint64 `json:"n"`
	Sequence uint64 `json:"sequence"`
}

// All passes the records since a time (zero: all) to each, in the order of the stream. It
// skips what is no audit message, which Verify reports.
func All(ctx context.Context, js jetstream.JetStream, subjects events.Subjects, since time.Time, each func(Entry) error) error {
	stream, info, err := open(ctx, js, subjects)
	if err != nil {
		return err
	}
	return read(ctx, stream, info, since, func(s stored) error {
		m, err := decode(s.body)
		if err != nil {
			return nil //nolint:nilerr // Verify reports it
		}
		for _, r := range m.Records {
			if r.At.Before(since) {
				continue
			}
			if err := each(Entry{Record: r, Worker: m.Worker, Chain: m.Chain, Number: m.Number, Sequence: s.sequence}); err != nil {
				return err
			}
		}
		return nil
	})
}
