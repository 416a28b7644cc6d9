// Package parts keeps in NATS what one message can't hold: sealed bytes go into
// as many messages as they take, and the message that describes them names the
// parts by their places in the stream. The parts are written first, so that
// whoever sees the description finds all of them.
package parts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// headerOf names what a part belongs to.
	headerOf = "Latchkey-Part-Of"
	// HeaderStored is when NATS first took in what a message holds.
	HeaderStored = "Latchkey-Stored-At"
	// minSize is the smallest part that is tried.
	minSize = 1 << 10
	// tidyTimeout bounds the removal of parts that nothing will ever name.
	tidyTimeout = 20 * time.Second
)

// ErrMissing: a part is not, or no longer, there.
var ErrMissing = errors.New("a part is missing in NATS")

// codeTooLarge is JetStream's error for a message above a stream's max_msg_size.
const codeTooLarge jetstream.ErrorCode = 10054

// TooLarge reports whether NATS refused a message for its size.
func TooLarge(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) || errors.As(err, &api) && api.ErrorCode == codeTooLarge
}

// Refused reports whether NATS did not store a message, as opposed to an outcome
// that is not known.
func Refused(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) || errors.As(err, &api)
}

// Fits reports whether a body of this many bytes goes into one message with
// room to spare for its headers.
func Fits(js jetstream.JetStream, size int) bool { return size <= partSize(js) }

func partSize(js jetstream.JetStream) int { return max(int(js.Conn().MaxPayload()/2), minSize) }

// Write publishes data in parts to a subject and returns their places in its
// stream. of is what they belong to, stored when the message that they come from
// was taken in. After an error what was written is removed again, as far as NATS
// can be reached; otherwise no description names it.
func Write(ctx context.Context, js jetstream.JetStream, subject, of string, stored time.Time, data []byte) (sequences []uint64, err error) {
	stream := ""
	defer func() {
		if err != nil && len(sequences) > 0 {
			Tidy(ctx, js, stream, of, sequences)
			sequences = nil
		}
	}()
	for size := partSize(js); len(data) > 0; {
		msg := nats.NewMsg(subject)
		msg.Data = data[:min(size, len(data))]
		msg.Header.Set(headerOf, of)
		msg.Header.Set(HeaderStored, stored.UTC().Format(time.RFC3339Nano))
		ack, err := js.PublishMsg(ctx, msg)
		if TooLarge(err) && size > minSize { // the limit was lowered, or the stream has its own
			size = max(size/2, minSize)
			continue
		}
		if err != nil {
			return sequences, fmt.Errorf("writing a part: %w", err)
		}
		stream, sequences, data = ack.Stream, append(sequences, ack.Sequence), data[len(msg.Data):]
	}
	return sequences, nil
}

// Tidy removes parts that nothing will ever name, if NATS can be reached.
func Tidy(ctx context.Context, js jetstream.JetStream, stream, of string, sequences []uint64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
	defer cancel()
	if s, err := js.Stream(ctx, stream); err == nil {
		_ = Delete(ctx, s, of, sequences) // nobody misses what is left
	}
}

// Read returns the bytes that Write took. The error wraps ErrMissing if not all
// of them are there.
func Read(ctx context.Context, stream jetstream.Stream, of string, sequences []uint64) ([]byte, error) {
	var out bytes.Buffer
	for _, sequence := range sequences {
		msg, err := part(ctx, stream, of, sequence)
		if err != nil {
			return nil, err
		}
		out.Write(msg.Data)
	}
	return out.Bytes(), nil
}

// Delete deletes parts, and has the server overwrite their bytes on disk. One
// that is gone already is no error, and one that can't be deleted keeps no other.
func Delete(ctx context.Context, stream jetstream.Stream, of string, sequences []uint64) error {
	var failed []error
	for _, sequence := range sequences {
		_, err := part(ctx, stream, of, sequence)
		if err == nil {
			err = stream.SecureDeleteMsg(ctx, sequence)
		}
		if err != nil && !errors.Is(err, ErrMissing) {
			failed = append(failed, fmt.Errorf("deleting a part: %w", err))
		}
	}
	return errors.Join(failed...)
}

// part reads one message, and sees that it is a part of what is asked for.
func part(ctx context.Context, stream jetstream.Stream, of string, sequence uint64) (*jetstream.RawStreamMsg, error) {
	if sequence == 0 { // which NATS takes for the first message there is
		return nil, ErrMissing
	}
	msg, err := stream.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, ErrMissing
	}
	if err != nil {
		return nil, fmt.Errorf("reading a part: %w", err)
	}
	if Of(msg) != of {
		return nil, ErrMissing
	}
	return msg, nil
}

// Of returns what a message is a part of; empty: it is no part.
func Of(msg *jetstream.RawStreamMsg) string { return msg.Header.Get(headerOf) }

// Stored returns when the message was taken in that a part comes from.
func Stored(msg *jetstream.RawStreamMsg) time.Time {
	at, err := time.Parse(time.RFC3339Nano, msg.Header.Get(HeaderStored))
	if err != nil {
		return msg.Time
	}
	return at
}

// Whole returns how many messages a stream holds beside the parts, which lie on
// the subjects that a filter matches.
func Whole(ctx context.Context, stream jetstream.Stream, partSubjects string) (uint64, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(partSubjects))
	if err != nil {
		return 0, fmt.Errorf("counting messages: %w", err)
	}
	whole := info.State.Msgs
	for _, n := range info.State.Subjects {
		whole -= min(n, whole)
	}
	return whole, nil
}
