package refresher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
)

// RecoveryKeys returns how many entries of the recovery stream are sealed under
// each data key.
func RecoveryKeys(ctx context.Context, js jetstream.JetStream, subjects events.Subjects) (map[string]int, error) {
	stream, err := js.Stream(ctx, subjects.RecoveryStream())
	if err != nil {
		return nil, fmt.Errorf("looking for the recovery stream: %w", err)
	}
	keys := map[string]int{}
	for next := uint64(1); ; {
		msg, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subjects.RecoveryAll()))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return keys, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the recovery stream: %w", err)
		}
		var entry recoveryEntry
		if json.Unmarshal(msg.Data, &entry) == nil && entry.Sealed.KeyID != "" { // all else no worker can apply
			keys[entry.Sealed.KeyID]++
		}
		next = msg.Sequence + 1
	}
}
