package streams

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/nats-io/nats.go/jetstream"
)

// Messages returns the messages of a stream that match a subject, from a sequence on. It
// reads one at a time, so the caller may delete messages meanwhile. It ends after an
// error.
func Messages(ctx context.Context, stream jetstream.Stream, subject string, from uint64) iter.Seq2[*jetstream.RawStreamMsg, error] {
	return func(yield func(*jetstream.RawStreamMsg, error) bool) {
		for next := max(from, 1); ; {
			msg, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return
			}
			if err != nil {
				yield(nil, fmt.Errorf("reading stream %s: %w", stream.CachedInfo().Config.Name, err))
				return
			}
			if !yield(msg, nil) {
				return
			}
			next = msg.Sequence + 1
		}
	}
}
