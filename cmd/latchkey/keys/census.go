// Package keys looks after the stored data keys: what they seal, which KMS key
// wraps them, how they are replaced, and when they may go.
package keys

import (
	"context"
	"time"

	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// Progress is told how a long walk goes on.
type Progress interface {
	// Total says how many steps there will be about.
	Total(n int)
	Step()
}

// Streams is what is sealed in NATS.
type Streams struct {
	// DeadLetters and Recovery count what is sealed under each data key.
	DeadLetters, Recovery map[string]int
	// LastRecovery is when the last recovery entry became a dead letter; zero:
	// there is none. What such an entry is sealed under can't be seen.
	LastRecovery time.Time
}

// ReadStreams counts what is sealed in NATS. recovery is refresher.RecoveryKeys.
func ReadStreams(ctx context.Context, letters *handlers.DeadLetters, recovery func(context.Context) (map[string]int, error)) (Streams, error) {
	s := Streams{DeadLetters: map[string]int{}}
	for letter, err := range letters.All(ctx) {
		if err != nil {
			return s, err
		}
		if letter.Sealed.KeyID != "" {
			s.DeadLetters[letter.Sealed.KeyID]++
		}
		if letter.Message == handlers.RecoveryName && letter.ParkedAt.After(s.LastRecovery) {
			s.LastRecovery = letter.ParkedAt
		}
	}
	var err error
	s.Recovery, err = recovery(ctx)
	return s, err
}

// Use is a data key with the number of token sets that it seals.
type Use struct {
	envelope.WrappedKey
	Sets int
}

// Census is all data keys, oldest first.
type Census struct {
	Keys []Use
	// Missing counts the token sets under data keys that are not stored.
	Missing map[string]int
}

// TakeCensus reads all data keys and counts what they seal.
func TakeCensus(ctx context.Context, db *store.Store) (Census, error) {
	// The sets first: whatever key they name is stored before them.
	sets, err := db.TokenSets(ctx)
	if err != nil {
		return Census{}, err
	}
	c := Census{Missing: sets}
	for key, err := range db.Keys(ctx, time.Time{}) {
		if err != nil {
			return c, err
		}
		c.Keys = append(c.Keys, Use{key, sets[key.ID]})
		delete(c.Missing, key.ID)
	}
	return c, nil
}

// Bounds are the limits of data keys in the configuration.
type Bounds struct {
	MaxAge, CacheAge, Outage time.Duration
}

// SealsUntil returns when a data key seals for the last time. Keys of before
// that was recorded are judged by the configuration.
func (b Bounds) SealsUntil(key envelope.WrappedKey) time.Time {
	if key.SealsUntil.IsZero() {
		return key.CreatedAt.Add(b.MaxAge + max(b.CacheAge, b.Outage))
	}
	return key.SealsUntil
}
