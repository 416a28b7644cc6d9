package keys

import (
	"context"
	"time"

	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// Progress receives the progress of a long walk.
type Progress interface {
	// Total sets how many steps there will be, roughly.
	Total(n int)
	Step()
}

// Streams describes what is sealed in NATS.
type Streams struct {
	// DeadLetters and Recovery count what is sealed under each data key.
	DeadLetters, Recovery map[string]int
	// LastRecovery is when the last recovery entry became a dead letter; zero: there is
	// none. It is not known which data key seals such an entry.
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
	// Token sets first: a data key is stored before the sets that it seals.
	sets, err := db.TokenSets(ctx)
	if err != nil {
		return Census{}, err
	}
	c := Census{Missing: sets}
	all, err := allKeys(ctx, db)
	for _, key := range all {
		c.Keys = append(c.Keys, Use{key, sets[key.ID]})
		delete(c.Missing, key.ID)
	}
	return c, err
}

func allKeys(ctx context.Context, db *store.Store) (all []envelope.WrappedKey, err error) {
	for key, err := range db.Keys(ctx, time.Time{}) {
		if err != nil {
			return nil, err
		}
		all = append(all, key)
	}
	return all, nil
}

// Bounds are the limits of data keys in the configuration.
type Bounds struct {
	MaxAge, CacheAge, Outage time.Duration
}

// SealsUntil returns when a data key seals for the last time. For keys of releases that
// did not record it, the configuration says when.
func (b Bounds) SealsUntil(key envelope.WrappedKey) time.Time {
	if key.SealsUntil.IsZero() {
		return key.CreatedAt.Add(b.MaxAge + max(b.CacheAge, b.Outage))
	}
	return key.SealsUntil
}
