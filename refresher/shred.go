package refresher

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/parts"
)

// Shred deletes the messages of a stream that match a subject and that pick
// wants gone (nil: all), and has the server overwrite their bytes on disk. It
// returns how many. A message that pick fails on, or that can't be deleted, keeps
// no other: the error is told at the end.
func Shred(ctx context.Context, js jetstream.JetStream, stream, subject string, pick func(*jetstream.RawStreamMsg) (bool, error)) (int, error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("erasing from %s: %w", stream, err)
	}
	gone := 0
	var failed []error
	for next := uint64(1); ; {
		msg, err := s.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return gone, together(failed)
		}
		if err != nil {
			return gone, errors.Join(fmt.Errorf("erasing from %s: %w", stream, err), together(failed))
		}
		next = msg.Sequence + 1
		wanted := true
		if pick != nil {
			wanted, err = pick(msg)
		}
		if wanted && err == nil {
			if err = s.SecureDeleteMsg(ctx, msg.Sequence); err == nil {
				gone++
			} else if _, getErr := s.GetMsg(ctx, msg.Sequence); errors.Is(getErr, jetstream.ErrMsgNotFound) {
				err = nil // one that was handled or erased meanwhile need not be deleted
			} else {
				err = fmt.Errorf("erasing from %s: %w", stream, err)
			}
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
}

// maxTold is how many errors of one kind of work are told.
const maxTold = 5

// together joins errors, of which the first few tell what is wrong.
func together(failed []error) error {
	if more := len(failed) - maxTold; more > 0 {
		failed = append(failed[:maxTold:maxTold], fmt.Errorf("and %d more", more))
	}
	return errors.Join(failed...)
}

// shredCopies erases what holds tokens of a revoked grant beside its document:
// answers on their way into the database, and, where the user has disconnected,
// dead letters. The user may have connected anew since; answers of that stay.
func (d *Dispatcher) shredCopies(ctx context.Context, g *store.Grant) error {
	before := func(msg *jetstream.RawStreamMsg) (bool, error) {
		var entry recoveryEntry
		if connectedAfter(msg, g) {
			return false, nil
		}
		if json.Unmarshal(msg.Data, &entry) != nil { // a part
			return true, nil
		}
		return true, d.store.Spend(ctx, entry.Spent, d.now(), d.now().Add(d.Remember))
	}
	type source struct {
		stream, subject string
		pick            func(*jetstream.RawStreamMsg) (bool, error)
	}
	sources := []source{
		{d.subjects.RecoveryStream(), d.subjects.Recovery(g.ID), before},
		{d.subjects.RecoveryStream(), d.subjects.RecoveryPart(g.ID), before},
	}
	if g.Reason == events.ReasonDisconnected {
		sources = append(sources, source{d.subjects.DeadLetterStream(), d.subjects.DeadLettersOf(g.ID), nil})
	}
	var failed []error
	for _, from := range sources {
		if _, err := Shred(ctx, d.js, from.stream, from.subject, from.pick); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// connectedAfter reports whether a message of the recovery stream holds an answer
// to a grant that was connected anew since.
func connectedAfter(msg *jetstream.RawStreamMsg, g *store.Grant) bool {
	rest, ok := strings.CutPrefix(cmp.Or(parts.Of(msg), msg.Header.Get(jetstream.MsgIDHeader)), g.ID+".")
	at, _, _ := strings.Cut(rest, ".")
	connected, err := strconv.ParseInt(at, 10, 64)
	return ok && err == nil && connected > g.ConnectedAt.UnixMilli()
}
