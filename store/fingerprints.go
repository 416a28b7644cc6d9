package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store/envelope"
)

// Fingerprints gives out the FingerprintKey of an installation. All its workers
// share the key by way of the database, where it lies under the envelope. It is
// opened anew for each use, so that it is in memory, and refused, as data keys
// are; that costs no call of KMS while the data key is at hand.
type Fingerprints struct {
	Store    *Store
	Envelope *envelope.Envelope
	// Rand makes the key (crypto/rand).
	Rand io.Reader
	Log  *zap.Logger

	mu   sync.Mutex
	last *SealedFingerprintKey
}

// SealedFingerprintKey is the key as it is stored.
type SealedFingerprintKey struct {
	ID     string        `bson:"id"`
	Sealed envelope.Blob `bson:"sealed"`
}

// Binding is what the key is sealed to.
func (k SealedFingerprintKey) Binding() envelope.Binding {
	return envelope.Binding{Purpose: envelope.PurposeFingerprintKey, Grant: k.ID}
}

var fingerprintDoc = bson.D{{Key: "_id", Value: "fingerprints"}}

// SealedFingerprintKey returns the stored key, or ErrNotFound.
func (s *Store) SealedFingerprintKey(ctx context.Context) (SealedFingerprintKey, error) {
	var key SealedFingerprintKey
	err := s.meta.FindOne(ctx, fingerprintDoc).Decode(&key)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return key, fmt.Errorf("the fingerprint key: %w", ErrNotFound)
	}
	if err != nil {
		return key, fmt.Errorf("reading the fingerprint key: %w", err)
	}
	return key, nil
}

// PutFingerprintKey stores a key in the place of the one that is sealed as
// before says, or of none. ErrConflict: another worker was first.
func (s *Store) PutFingerprintKey(ctx context.Context, before *SealedFingerprintKey, key SealedFingerprintKey) error {
	filter := fingerprintDoc
	update := bson.D{{Key: "$setOnInsert", Value: key}}
	if before != nil {
		filter = bson.D{fingerprintDoc[0], {Key: "id", Value: before.ID}, {Key: sealedKey, Value: before.Sealed.KeyID}}
		update = bson.D{{Key: "$set", Value: key}}
	}
	res, err := s.meta.UpdateOne(ctx, filter, update, options.UpdateOne().SetUpsert(before == nil))
	if duplicate(err) || err == nil && res.UpsertedCount+res.ModifiedCount == 0 {
		return fmt.Errorf("storing the fingerprint key: %w", ErrConflict)
	}
	if err != nil {
		return fmt.Errorf("storing the fingerprint key: %w", err)
	}
	return nil
}

// maxFingerprintTries bounds how often a worker finds that the key has changed.
const (
	maxFingerprintTries = 20
	fingerprintPause    = 50 * time.Millisecond
)

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Key returns the key, which the first worker makes. Where it can't be opened any
// more, since its data key is gone for good, it is made anew: reconciliation
// derives the fingerprints of all grants again.
func (f *Fingerprints) Key(ctx context.Context) (FingerprintKey, error) {
	sealed := f.known()
	for range maxFingerprintTries {
		if sealed != nil {
			key, err := f.open(ctx, *sealed)
			if err == nil || !lostForGood(err) {
				return key, err
			}
		}
		stored, err := f.Store.SealedFingerprintKey(ctx)
		switch {
		case errors.Is(err, ErrNotFound):
			err = f.make(ctx, nil)
		case err == nil && sealed != nil && stored.Sealed.KeyID == sealed.Sealed.KeyID && stored.ID == sealed.ID:
			f.Log.Error("the fingerprint key does not open; a new one is made, and the fingerprints of all grants are derived again")
			err = f.make(ctx, &stored)
		case err == nil:
			f.remember(stored)
			sealed = &stored
		}
		if errors.Is(err, ErrConflict) {
			// Another worker was first. Until a majority has its key, it is not read.
			err = pause(ctx, fingerprintPause)
		}
		if err != nil {
			return FingerprintKey{}, err
		}
	}
	return FingerprintKey{}, errors.New("the fingerprint key changes all the time")
}

// Sealer returns what a user's token sets are sealed with. The user is empty for
// what belongs to none.
func (f *Fingerprints) Sealer(ctx context.Context, user string) (s TokenSealer, err error) {
	if s.Key, err = f.Key(ctx); err != nil {
		return s, err
	}
	s.Sealer, err = f.Envelope.Sealer(ctx, user)
	return s, err
}

// lostForGood: such a blob opens only if somebody restores a data key.
func lostForGood(err error) bool {
	return errors.Is(err, envelope.ErrSealed) || errors.Is(err, envelope.ErrUnknownKey) || errors.Is(err, envelope.ErrWrappedKey)
}

func (f *Fingerprints) known() *SealedFingerprintKey {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func (f *Fingerprints) remember(key SealedFingerprintKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = &key
}

func (f *Fingerprints) open(ctx context.Context, sealed SealedFingerprintKey) (FingerprintKey, error) {
	plain, err := f.Envelope.Open(ctx, sealed.Sealed, sealed.Binding())
	if err != nil {
		return FingerprintKey{}, fmt.Errorf("opening the fingerprint key: %w", err)
	}
	defer clear(plain)
	return FingerprintKey{ID: sealed.ID, key: secret.New(string(plain))}, nil
}

// make stores a new key, in the place of one that is lost.
func (f *Fingerprints) make(ctx context.Context, lost *SealedFingerprintKey) error {
	sealer, err := f.Envelope.Sealer(ctx, "")
	if err != nil {
		return err
	}
	from := f.Rand
	if from == nil {
		from = rand.Reader
	}
	var raw [8 + 32]byte
	defer clear(raw[:])
	if _, err := io.ReadFull(from, raw[:]); err != nil {
		return fmt.Errorf("making a fingerprint key: %w", err)
	}
	key := SealedFingerprintKey{ID: hex.EncodeToString(raw[:8])}
	key.Sealed = sealer.Seal(raw[8:], key.Binding())
	return f.Store.PutFingerprintKey(ctx, lost, key)
}

// Reseal seals the key under the data key that is active now, if one of the old
// data keys seals it.
func (f *Fingerprints) Reseal(ctx context.Context, old func(dataKey string) bool) error {
	stored, err := f.Store.SealedFingerprintKey(ctx)
	if errors.Is(err, ErrNotFound) || err == nil && !old(stored.Sealed.KeyID) {
		return nil
	}
	if err != nil {
		return err
	}
	sealer, err := f.Envelope.Sealer(ctx, "")
	if err != nil {
		return err
	}
	plain, err := f.Envelope.Open(ctx, stored.Sealed, stored.Binding())
	if lostForGood(err) {
		return nil // a worker makes another
	}
	if err != nil {
		return fmt.Errorf("opening the fingerprint key: %w", err)
	}
	defer clear(plain)
	err = f.Store.PutFingerprintKey(ctx, &stored, SealedFingerprintKey{ID: stored.ID, Sealed: sealer.Seal(plain, stored.Binding())})
	if errors.Is(err, ErrConflict) {
		return nil // another was first
	}
	return err
}
