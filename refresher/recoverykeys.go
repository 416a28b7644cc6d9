package refresher

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/streams"
)

// RecoveryKeys returns how many recovery entries are sealed under each data key.
func RecoveryKeys(ctx context.Context, js jetstream.JetStream, subjects events.Subjects) (map[string]int, error) {
	stream, err := js.Stream(ctx, subjects.RecoveryStream())
	if err != nil {
		return nil, fmt.Errorf("looking for the recovery stream: %w", err)
	}
	keys := map[string]int{}
	for msg, err := range streams.Messages(ctx, stream, subjects.RecoveryAll(), 1) {
		if err != nil {
			return nil, err
		}
		var entry recoveryEntry
		if json.Unmarshal(msg.Data, &entry) == nil && entry.Sealed.KeyID != "" { // all else no worker can apply
			keys[entry.Sealed.KeyID]++
		}
	}
	return keys, nil
}
