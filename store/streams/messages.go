package streams

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

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

// Merged is Messages for several subjects, in the order of their sequences. No message
// may match two of the subjects.
func Merged(ctx context.Context, stream jetstream.Stream, subjects []string, from uint64) iter.Seq2[*jetstream.RawStreamMsg, error] {
	if len(subjects) == 1 {
		return Messages(ctx, stream, subjects[0], from)
	}
	return func(yield func(*jetstream.RawStreamMsg, error) bool) {
		type head struct {
			msg  *jetstream.RawStreamMsg
			next func() (*jetstream.RawStreamMsg, error, bool)
		}
		var heads []head
		push := func(next func() (*jetstream.RawStreamMsg, error, bool)) error {
			msg, err, more := next()
			if more && err == nil {
				heads = append(heads, head{msg, next})
			}
			return err
		}
		for _, subject := range subjects {
			next, stop := iter.Pull2(Messages(ctx, stream, subject, from))
			defer stop()
			if err := push(next); err != nil {
				yield(nil, err)
				return
			}
		}
		for len(heads) > 0 {
			first := slices.MinFunc(heads, func(a, b head) int { return cmp.Compare(a.msg.Sequence, b.msg.Sequence) })
			heads = slices.DeleteFunc(heads, func(h head) bool { return h.msg == first.msg })
			if !yield(first.msg, nil) {
				return
			}
			if err := push(first.next); err != nil {
				yield(nil, err)
				return
			}
		}
	}
}
