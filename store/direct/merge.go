package direct

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// mergeBytes bounds what ReadAll reads ahead from all streams together, as long as each has
// room for a message.
const mergeBytes = 8 << 20

// ReadAll returns messages of several streams in the order of their times; selected says which
// of each. Where that follows, further messages come as they are found. ReadAll ends after an
// error of any of the streams.
func ReadAll(ctx context.Context, js jetstream.JetStream, streams []jetstream.Stream, selected func(jetstream.Stream) Reading) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		readings, follow := make([]Reading, len(streams)), false
		for i, stream := range streams {
			readings[i] = selected(stream)
			follow, readings[i].Follow = readings[i].Follow, false
			readings[i].bytes = min(readBytes, mergeBytes/len(streams))
		}
		if merge(ctx, js, streams, readings, yield) && follow {
			followAll(ctx, js, streams, readings, yield)
		}
	}
}

// head is the next message of one of several streams.
type head struct {
	Message
	reading *Reading
	next    func() (Message, error, bool)
}

// merge yields what the streams hold by now, and lets the readings go on after that. It
// reports whether more is wanted.
func merge(ctx context.Context, js jetstream.JetStream, streams []jetstream.Stream, readings []Reading, yield func(Message, error) bool) bool {
	var heads []*head
	for i, stream := range streams {
		next, stop := iter.Pull2(Read(ctx, js, stream, readings[i]))
		defer stop()
		heads = append(heads, &head{reading: &readings[i], next: next})
	}
	due := slices.Clone(heads) // those whose next message is to be read
	for {
		for _, h := range due {
			m, err, more := h.next()
			if err != nil {
				yield(m, err)
				return false
			}
			if h.Message = m; !more {
				heads = slices.DeleteFunc(heads, func(other *head) bool { return other == h })
			}
		}
		if len(heads) == 0 {
			return true
		}
		first := slices.MinFunc(heads, func(a, b *head) int { return a.Time.Compare(b.Time) })
		if !yield(first.Message, nil) {
			return false
		}
		first.reading.From, first.reading.Since = first.Sequence+1, time.Time{}
		due = []*head{first}
	}
}

// followAll yields what comes, until ctx ends.
func followAll(ctx context.Context, js jetstream.JetStream, streams []jetstream.Stream, readings []Reading, yield func(Message, error) bool) {
	type found struct {
		message Message
		err     error
	}
	var readers sync.WaitGroup
	defer readers.Wait()
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	all := make(chan found)
	for i, stream := range streams {
		r := readings[i]
		r.Follow = true
		readers.Go(func() {
			for m, err := range Read(within, js, stream, r) {
				select {
				case all <- found{m, err}:
				case <-within.Done():
					return
				}
			}
		})
	}
	for {
		select {
		case f := <-all:
			if !yield(f.message, f.err) || f.err != nil {
				return
			}
		case <-ctx.Done():
			yield(Message{}, context.Cause(ctx))
			return
		}
	}
}
