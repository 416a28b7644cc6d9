package refresher

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/parts"
	"github.com/latchkey/latchkey/store/streams"
)

// deleteCopies securely deletes the tokens of a revoked grant outside of its document:
// answers on their way into the database, and, if the user has disconnected, dead
// letters. Answers to a newer connect of the same grant stay.
func (d *Dispatcher) deleteCopies(ctx context.Context, g *store.Grant) error {
	before := func(msg *jetstream.RawStreamMsg) (bool, error) {
		if connectedAfter(msg, g) {
			return false, nil
		}
		var entry recoveryEntry
		_ = json.Unmarshal(msg.Data, &entry) // a part names no token that was spent
		return true, d.options.Store.RecordSpent(ctx, entry.Spent, d.options.Now(), d.options.Now().Add(d.options.Remember))
	}
	var failed error
	erase := func(stream, subject string, pick func(*jetstream.RawStreamMsg) (bool, error)) {
		_, err := streams.SecureDelete(ctx, d.options.JetStream, stream, subject, pick)
		failed = errors.Join(failed, err)
	}
	erase(d.options.Subjects.RecoveryStream(), d.options.Subjects.Recovery(g.ID), before)
	erase(d.options.Subjects.RecoveryStream(), d.options.Subjects.RecoveryPart(g.ID), before)
	if g.Reason == events.ReasonDisconnected {
		erase(d.options.Subjects.DeadLetterStream(), d.options.Subjects.DeadLettersOf(g.ID), nil)
	}
	return failed
}

// connectedAfter reports whether a recovery message belongs to a newer connect of the grant.
func connectedAfter(msg *jetstream.RawStreamMsg, g *store.Grant) bool {
	rest, ok := strings.CutPrefix(cmp.Or(parts.DescriptionOf(msg), msg.Header.Get(jetstream.MsgIDHeader)), g.ID+".")
	at, _, _ := strings.Cut(rest, ".")
	connected, err := strconv.ParseInt(at, 10, 64)
	return ok && err == nil && connected > g.ConnectedAt.UnixMilli()
}
