package envelope

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// openingKey is a cached data key for opening. The cache retains its material.
type openingKey struct {
	id    string
	kek   string
	scope string
	since time.Time
	*material
}

func (e *Envelope) youngerThan(key *openingKey, age time.Duration) bool {
	return e.opts.Now().Sub(key.since) < age
}

// Open opens a blob. The error wraps ErrSealed (for good), ErrUnknownKey or ErrWrappedKey
// (until somebody restores the key), ErrKMS (for now) or an error of the store.
func (e *Envelope) Open(ctx context.Context, blob Blob, b Binding) ([]byte, error) {
	return e.OpenInto(ctx, nil, blob, b)
}

// OpenInto is Open into the memory of an empty slice, if that suffices. With an error it
// returns the slice as it was.
func (e *Envelope) OpenInto(ctx context.Context, into []byte, blob Blob, b Binding) ([]byte, error) {
	m, err := e.materialOf(ctx, blob.KeyID)
	if err != nil {
		return into, err
	}
	defer m.release()
	return openWith(m.aead, into, blob, b)
}

// Cached reports whether a data key is cached for opening.
func (e *Envelope) Cached(id string) bool {
	key, ok := e.cache.Get(id)
	return ok && e.youngerThan(key, e.opts.CacheAge)
}

// materialOf returns the material of a data key, which the caller must release.
func (e *Envelope) materialOf(ctx context.Context, id string) (*material, error) {
	for {
		key, ok := e.cache.Get(id)
		if ok && e.youngerThan(key, e.opts.CacheAge) {
			if key.retain() {
				return key.material, nil
			}
			continue // evicted just now
		}
		bridges := ok && e.youngerThan(key, e.opts.CacheAge+e.opts.Outage)
		unwrap := func(ctx context.Context) (*openingKey, error) { return e.unwrap(ctx, id) }
		if bridges {
			if away, due := e.gate(key.kek).outage(e.opts.Now()); away && key.retain() {
				if due {
					startCall(ctx, e, &e.open, id, unwrap) // nobody waits for it
				}
				return key.material, nil
			}
		}
		fresh, err := await[*openingKey](ctx, startCall(ctx, e, &e.open, id, unwrap))
		switch {
		case err == nil && fresh.retain():
			return fresh.material, nil
		case err == nil: // evicted already
			continue
		case bridges && errors.Is(err, ErrKMS) && !Refused(err) && key.retain():
			return key.material, nil
		}
		return nil, err
	}
}

// unwrap makes KMS decrypt a stored data key, and caches it. It drops a key that is gone
// or refused.
func (e *Envelope) unwrap(ctx context.Context, id string) (*openingKey, error) {
	wrapped, err := e.opts.Store.Key(ctx, id)
	if errors.Is(err, ErrUnknownKey) {
		e.drop(id)
	}
	if err != nil {
		return nil, fmt.Errorf("finding data key %q: %w", id, err)
	}
	if len(wrapped.Wrapped) == 0 {
		e.drop(id)
		return nil, fmt.Errorf("unwrapping data key %q: %w", id, ErrWrappedKey)
	}
	kek := RegionalARN(wrapped.KEK, e.opts.Region)
	out, err := callKMS(e, kek, "Decrypt", AboutCiphertext, func() (*kms.DecryptOutput, error) {
		return e.opts.KMS.Decrypt(ctx, &kms.DecryptInput{
			CiphertextBlob:    wrapped.Wrapped,
			KeyId:             aws.String(kek),
			EncryptionContext: KMSContext(id),
		})
	})
	switch {
	case err != nil && AboutCiphertext(err):
		e.drop(id)
		return nil, fmt.Errorf("unwrapping data key %q: %w", id, ErrWrappedKey)
	case err != nil:
		if Refused(err) {
			e.drop(id)
		}
		return nil, fmt.Errorf("unwrapping data key %q: %w", id, err)
	}
	defer clear(out.Plaintext)
	m, err := e.newMaterial(out.Plaintext)
	if err != nil {
		e.drop(id)
		return nil, fmt.Errorf("%w: %w", ErrWrappedKey, err)
	}
	return e.remember(&openingKey{id: id, kek: kek, scope: wrapped.Scope, since: e.opts.Now(), material: m}), nil
}

// remember caches a key, and takes over the caller's reference.
func (e *Envelope) remember(key *openingKey) *openingKey {
	if e.closed.Load() {
		runtime.AddCleanup(key, (*material).release, key.material)
		return key
	}
	e.DropAged()
	e.cache.Remove(key.id) // Add evicts no key that it replaces
	e.cache.Add(key.id, key)
	if e.closed.Load() {
		e.cache.Purge()
	}
	return key
}
