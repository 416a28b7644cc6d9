package refresher

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Shred deletes the messages of a stream that match a subject and that pick
// wants gone (nil: all), and has the server overwrite their bytes on disk. It
// returns how many.
func Shred(ctx context.Context, js jetstream.JetStream, stream, subject string, pick func(*jetstream.RawStreamMsg) (bool, error)) (int, error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("erasing from %s: %w", stream, err)
	}
	gone := 0
	for next := uint64(1); ; {
		msg, err := s.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return gone, nil
		}
		if err != nil {
			return gone, fmt.Errorf("erasing from %s: %w", stream, err)
		}
		next = msg.Sequence + 1
		if pick != nil {
			wanted, err := pick(msg)
			if err != nil {
				return gone, err
			}
			if !wanted {
				continue
			}
		}
		if err := s.SecureDeleteMsg(ctx, msg.Sequence); err != nil {
			// One that was handled or erased meanwhile can't be deleted, and need not.
			if _, getErr := s.GetMsg(ctx, msg.Sequence); !errors.Is(getErr, jetstream.ErrMsgNotFound) {
				return gone, fmt.Errorf("erasing from %s: %w", stream, err)
			}
			continue
		}
		gone++
	}
}

// shredCopies erases what holds tokens of a grant beside its document: answers
// on their way into the database, and dead letters.
func (d *Dispatcher) shredCopies(ctx context.Context, grantID string) error {
	for _, from := range []struct{ stream, subject string }{
		{d.subjects.RecoveryStream(), d.subjects.Recovery(grantID)},
		{d.subjects.RecoveryStream(), d.subjects.RecoveryPart(grantID)},
		{d.subjects.DeadLetterStream(), d.subjects.DeadLettersOf(grantID)},
	} {
		if _, err := Shred(ctx, d.js, from.stream, from.subject, nil); err != nil {
			return err
		}
	}
	return nil
}
