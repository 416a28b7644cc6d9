package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/zap"

	required "github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store/envelope"
)

// FingerprintOptions are the options for NewFingerprints.
type FingerprintOptions struct {
	Store    *Store
	Envelope *envelope.Envelope
	// Rand makes the key (crypto/rand).
	Rand io.Reader
	// Log may be nil.
	Log *zap.Logger
}

// Fingerprints returns the FingerprintKey of an installation. Its workers share the key
// in the database, where it is sealed by the envelope. It is opened for each use, so
// that it is in memory for no longer than data keys are, and a refusal of KMS holds for
// it too. Opening calls KMS only if the data key is not cached.
type Fingerprints struct {
	opts FingerprintOptions
	last atomic.Pointer[SealedFingerprintKey]
}

// NewFingerprints returns the fingerprints of an installation.
func NewFingerprints(o FingerprintOptions) (*Fingerprints, error) {
	if err := required.Require("the fingerprints", o, "Store", "Envelope"); err != nil {
		return nil, err
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return &Fingerprints{opts: o}, nil
}

// SealedFingerprintKey is the stored form of the key.
type SealedFingerprintKey struct {
	ID     string        `bson:"id"`
	Sealed envelope.Blob `bson:"sealed"`
}

// Binding is what the key is sealed to.
func (k SealedFingerprintKey) Binding() envelope.Binding {
	return envelope.Binding{Purpose: envelope.PurposeFingerprintKey, Grant: k.ID}
}

var fingerprintDoc = byID("fingerprints")

// SealedFingerprintKey returns the stored key, or ErrNotFound.
func (s *Store) SealedFingerprintKey(ctx context.Context) (SealedFingerprintKey, error) {
	return decodeOne[SealedFingerprintKey](s.meta.FindOne(ctx, fingerprintDoc), fmt.Errorf("the fingerprint key: %w", ErrNotFound), "reading the fingerprint key")
}

// PutFingerprintKey stores a key in place of a former one (nil: there is none).
// ErrConflict: another worker was first.
func (s *Store) PutFingerprintKey(ctx context.Context, former *SealedFingerprintKey, key SealedFingerprintKey) error {
	filter := fingerprintDoc
	update := bson.D{{Key: "$setOnInsert", Value: key}}
	if former != nil {
		filter = bson.D{fingerprintDoc[0], {Key: "id", Value: former.ID}, {Key: sealedKey, Value: former.Sealed.KeyID}}
		update = bson.D{{Key: "$set", Value: key}}
	}
	res, err := s.meta.UpdateOne(ctx, filter, update, options.UpdateOne().SetUpsert(former == nil))
	if duplicate(err) || err == nil && res.UpsertedCount+res.ModifiedCount == 0 {
		err = ErrConflict
	}
	return wrap(err, "storing the fingerprint key")
}

const (
	maxFingerprintAttempts = 20
	fingerprintPause       = 50 * time.Millisecond
)

// Key returns the key, which the first worker makes. If its data key is gone for good,
// Key makes another, and reconciliation derives the fingerprints of all grants again.
func (f *Fingerprints) Key(ctx context.Context) (FingerprintKey, error) {
	sealed := f.last.Load()
	for range maxFingerprintAttempts {
		if sealed != nil {
			key, err := f.open(ctx, *sealed)
			if err == nil || !lostForGood(err) {
				return key, err
			}
		}
		stored, err := f.opts.Store.SealedFingerprintKey(ctx)
		switch {
		case errors.Is(err, ErrNotFound):
			err = f.make(ctx, nil)
		case err == nil && sealed != nil && stored.Sealed.KeyID == sealed.Sealed.KeyID && stored.ID == sealed.ID:
			f.opts.Log.Error("the fingerprint key does not open; a new one is made, and the fingerprints of all grants are derived again")
			err = f.make(ctx, &stored)
		case err == nil:
			f.last.Store(&stored)
			sealed = &stored
		}
		if errors.Is(err, ErrConflict) {
			// Another worker was first. Its key can be read once a majority has it.
			err = pause.For(ctx, fingerprintPause)
		}
		if err != nil {
			return FingerprintKey{}, err
		}
	}
	return FingerprintKey{}, errors.New("the fingerprint key changes all the time")
}

// Sealer returns the sealer of a user's token sets; empty: of what belongs to no user.
func (f *Fingerprints) Sealer(ctx context.Context, user string) (s TokenSealer, err error) {
	if s.Key, err = f.Key(ctx); err != nil {
		return s, err
	}
	s.Sealer, err = f.opts.Envelope.Sealer(ctx, user)
	return s, err
}

// lostForGood reports whether a blob opens only after somebody restores a data key.
func lostForGood(err error) bool {
	return errors.Is(err, envelope.ErrSealed) || errors.Is(err, envelope.ErrUnknownKey) || errors.Is(err, envelope.ErrWrappedKey)
}

func (f *Fingerprints) open(ctx context.Context, sealed SealedFingerprintKey) (FingerprintKey, error) {
	plain, err := f.opts.Envelope.Open(ctx, sealed.Sealed, sealed.Binding())
	if err != nil {
		return FingerprintKey{}, fmt.Errorf("opening the fingerprint key: %w", err)
	}
	defer clear(plain)
	return FingerprintKey{ID: sealed.ID, key: secret.New(string(plain))}, nil
}

// make stores a new key in place of a lost one.
func (f *Fingerprints) make(ctx context.Context, lost *SealedFingerprintKey) error {
	sealer, err := f.opts.Envelope.Sealer(ctx, "")
	if err != nil {
		return err
	}
	var raw [8 + 32]byte
	defer clear(raw[:])
	if _, err := io.ReadFull(f.opts.Rand, raw[:]); err != nil {
		return fmt.Errorf("making a fingerprint key: %w", err)
	}
	key := SealedFingerprintKey{ID: hex.EncodeToString(raw[:8])}
	key.Sealed = sealer.Seal(raw[8:], key.Binding())
	return f.opts.Store.PutFingerprintKey(ctx, lost, key)
}

// Reseal seals the key under the active data key, if an old data key seals it.
func (f *Fingerprints) Reseal(ctx context.Context, old func(dataKey string) bool) error {
	stored, err := f.opts.Store.SealedFingerprintKey(ctx)
	if errors.Is(err, ErrNotFound) || err == nil && !old(stored.Sealed.KeyID) {
		return nil
	}
	if err != nil {
		return err
	}
	sealer, err := f.opts.Envelope.Sealer(ctx, "")
	if err != nil {
		return err
	}
	plain, err := f.opts.Envelope.Open(ctx, stored.Sealed, stored.Binding())
	if lostForGood(err) {
		return nil // a worker makes another
	}
	if err != nil {
		return fmt.Errorf("opening the fingerprint key: %w", err)
	}
	defer clear(plain)
	err = f.opts.Store.PutFingerprintKey(ctx, &stored, SealedFingerprintKey{ID: stored.ID, Sealed: sealer.Seal(plain, stored.Binding())})
	if errors.Is(err, ErrConflict) {
		return nil // another was first
	}
	return err
}
