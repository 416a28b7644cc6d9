package audit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/direct"
)

// ErrNoLog: there is no audit log to read.
var ErrNoLog = errors.New("there is no audit log here")

// ErrIncomplete: some streams of the audit log are missing.
var ErrIncomplete = errors.New("the audit log is incomplete")

// place is one of the streams that share the log.
type place struct {
	events.AuditPartition
	stream jetstream.Stream
}

// open returns the streams of the audit log, and the names of those that are missing.
func open(ctx context.Context, js jetstream.JetStream, subjects events.Subjects) (places []place, missing []string, err error) {
	parts, err := partitions(ctx, js, subjects)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range parts {
		stream, err := js.Stream(ctx, p.Stream)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			missing = append(missing, p.Stream)
		case err != nil:
			return nil, nil, fmt.Errorf("looking for the audit log: %w", err)
		default:
			places = append(places, place{p, stream})
		}
	}
	if len(places) == 0 {
		return nil, nil, fmt.Errorf("%w: no stream %s; has a worker run, with the same nats.url and nats.prefix?", ErrNoLog, strings.Join(missing, ", "))
	}
	return places, missing, nil
}

// partitions returns the configured partitions and, after them, those that hold what was
// written while there were more.
func partitions(ctx context.Context, js jetstream.JetStream, subjects events.Subjects) ([]events.AuditPartition, error) {
	configured := len(subjects.AuditPartitions())
	subjects.Partitions = events.MaxPartitions
	all := subjects.AuditPartitions()
	names := js.StreamNames(ctx, jetstream.WithStreamListSubject(all[0].Chain(">")))
	there := map[string]bool{}
	for name := range names.Name() {
		there[name] = true
	}
	if err := names.Err(); err != nil {
		return nil, fmt.Errorf("looking for the streams of the audit log: %w", err)
	}
	left := slices.DeleteFunc(all[configured:], func(p events.AuditPartition) bool { return !there[p.Stream] })
	return all[:configured+len(left)], nil
}

// reading selects the messages stored since a time (zero: all), up to the last one when the
// stream was opened. some: there are any.
func (p place) reading(since time.Time) (r direct.Reading, some bool) {
	state := p.stream.CachedInfo().State
	return direct.Reading{Subject: p.Chains, Since: since, Through: state.LastSeq}, state.Msgs > 0 && !state.LastTime.Before(since)
}

// messages returns those of one stream.
func (p place) messages(ctx context.Context, js jetstream.JetStream, since time.Time) iter.Seq2[direct.Message, error] {
	r, some := p.reading(since)
	if !some {
		return func(func(direct.Message, error) bool) {}
	}
	return direct.Read(ctx, js, p.stream, r)
}

// inOrder returns the messages of several streams in the order in which they were stored.
func inOrder(ctx context.Context, js jetstream.JetStream, places []place, since time.Time) iter.Seq2[direct.Message, error] {
	var streams []jetstream.Stream
	readings := map[jetstream.Stream]direct.Reading{}
	for _, p := range places {
		if r, some := p.reading(since); some {
			streams, readings[p.stream] = append(streams, p.stream), r
		}
	}
	return direct.ReadAll(ctx, js, streams, func(s jetstream.Stream) direct.Reading { return readings[s] })
}

// Entry is a record with its place in the log.
type Entry struct {
	Record
	Worker string `json:"worker"`
	Chain  string `json:"chain"`
	Number uint64 `json:"n"`
	// Sequence is the number in Stream, one of those that share the log.
	Stream   string `json:"stream"`
	Sequence uint64 `json:"sequence"`
}

// All passes the records since a time (zero: all) to each, in the order in which they were
// stored. It skips what is no audit message, which Verify reports. If streams are missing, it
// reads the others, and returns an error that wraps ErrIncomplete.
func All(ctx context.Context, js jetstream.JetStream, subjects events.Subjects, since time.Time, each func(Entry) error) error {
	places, missing, err := open(ctx, js, subjects)
	if err != nil {
		return err
	}
	for s, err := range inOrder(ctx, js, places, since) {
		if err != nil {
			return err
		}
		m, err := decode(s.Data)
		if err != nil {
			continue // Verify reports it
		}
		for _, r := range m.Records {
			if r.At.Before(since) {
				continue
			}
			if err := each(Entry{Record: r, Worker: m.Worker, Chain: m.Chain, Number: m.Number, Stream: s.Stream, Sequence: s.Sequence}); err != nil {
				return err
			}
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: no stream %s", ErrIncomplete, strings.Join(missing, ", "))
	}
	return nil
}
