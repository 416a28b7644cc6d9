// Package parts stores in NATS what is too large for one message. It splits sealed bytes
// into several messages, the parts. Another message, the description, lists the parts by
// their sequence numbers, and is published after them, so that its readers find them all.
package parts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// headerOf is the id of the description.
	headerOf = "Latchkey-Part-Of"
	// HeaderStored is when NATS first stored the contents of a message.
	HeaderStored = "Latchkey-Stored-At"
	// minSize is the smallest part that is tried.
	minSize     = 1 << 10
	tidyTimeout = 20 * time.Second
)

// ErrMissing: a part is not there.
var ErrMissing = errors.New("a part is missing in NATS")

// codeTooLarge is JetStream's error for a message above a stream's max_msg_size.
const codeTooLarge jetstream.ErrorCode = 10054

// TooLarge reports whether NATS rejected a message for its size.
func TooLarge(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) || errors.As(err, &api) && api.ErrorCode == codeTooLarge
}

// Refused reports whether NATS rejected a message. After other errors it may have stored
// it.
func Refused(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) || errors.As(err, &api)
}

// Fits reports whether a body of this many bytes and its headers fit into one message.
func Fits(js jetstream.JetStream, size int) bool { return size <= partSize(js) }

func partSize(js jetstream.JetStream) int { return max(int(js.Conn().MaxPayload()/2), minSize) }

// Write publishes data in parts to a subject and returns their sequence numbers. of is
// the id of the description, stored is when NATS stored the original message. After an
// error it removes what it wrote, if NATS can be reached.
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
		if TooLarge(err) && size > minSize { // the stream has a lower limit
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

// Tidy removes parts without a description, if NATS can be reached.
func Tidy(ctx context.Context, js jetstream.JetStream, stream, of string, sequences []uint64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
	defer cancel()
	if s, err := js.Stream(ctx, stream); err == nil {
		_ = Delete(ctx, s, of, sequences) // leftovers do no harm
	}
}

// Read returns the bytes that Write stored. The error wraps ErrMissing if a part is gone.
func Read(ctx context.Context, stream jetstream.Stream, of string, sequences []uint64) ([]byte, error) {
	var out []byte
	for _, sequence := range sequences {
		msg, err := part(ctx, stream, of, sequence)
		if err != nil {
			return nil, err
		}
		out = append(out, msg.Data...)
	}
	return out, nil
}

// Delete deletes parts, and makes the server overwrite their bytes on disk. A part that
// is gone is no error. After a failure Delete continues with the next part.
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

// part reads a message that must be a part of of.
func part(ctx context.Context, stream jetstream.Stream, of string, sequence uint64) (*jetstream.RawStreamMsg, error) {
	if sequence == 0 { // for NATS the first message in the stream
		return nil, ErrMissing
	}
	msg, err := stream.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, ErrMissing
	}
	if err != nil {
		return nil, fmt.Errorf("reading a part: %w", err)
	}
	if DescriptionOf(msg) != of {
		return nil, ErrMissing
	}
	return msg, nil
}

// DescriptionOf returns the id of the description to which a part belongs; empty: msg is no part.
func DescriptionOf(msg *jetstream.RawStreamMsg) string { return msg.Header.Get(headerOf) }

// Stored returns when NATS stored the original message of a part.
func Stored(msg *jetstream.RawStreamMsg) time.Time {
	at, err := time.Parse(time.RFC3339Nano, msg.Header.Get(HeaderStored))
	if err != nil {
		return msg.Time
	}
	return at
}

// CountWithoutParts returns how many messages of a stream are not on the subjects of parts.
func CountWithoutParts(ctx context.Context, stream jetstream.Stream, partSubjects string) (uint64, error) {
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
