package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/direct"
)

// ErrNoLog: there is no audit log to read.
var ErrNoLog = errors.New("there is no audit log here")

// open returns the stream of the audit log.
func open(ctx context.Context, js jetstream.JetStream, subjects events.Subjects) (jetstream.Stream, error) {
	stream, err := js.Stream(ctx, subjects.AuditStream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("%w: no stream %s; has a worker run, with the same nats.url and nats.prefix?", ErrNoLog, subjects.AuditStream())
	}
	if err != nil {
		return nil, fmt.Errorf("looking for the audit log: %w", err)
	}
	return stream, nil
}

// read passes the messages stored since a time (zero: all) to each, up to the last one in
// the stream's cached info.
func read(ctx context.Context, js jetstream.JetStream, stream jetstream.Stream, subjects events.Subjects, since time.Time, each func(direct.Message) error) error {
	state := stream.CachedInfo().State
	if state.Msgs == 0 || state.LastTime.Before(since) {
		return nil
	}
	for m, err := range direct.Read(ctx, js, stream, direct.Reading{Subject: subjects.AuditAll(), Since: since, Through: state.LastSeq}) {
		if err == nil {
			err = each(m)
		}
		if err != nil {
			return err
		}
	}
	return nil
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
	stream, err := open(ctx, js, subjects)
	if err != nil {
		return err
	}
	return read(ctx, js, stream, subjects, since, func(s direct.Message) error {
		m, err := decode(s.Data)
		if err != nil {
			return nil //nolint:nilerr // Verify reports it
		}
		for _, r := range m.Records {
			if r.At.Before(since) {
				continue
			}
			if err := each(Entry{Record: r, Worker: m.Worker, Chain: m.Chain, Number: m.Number, Sequence: s.Sequence}); err != nil {
				return err
			}
		}
		return nil
	})
}
