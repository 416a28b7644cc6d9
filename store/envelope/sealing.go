package envelope

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// sealingKey is a data key for sealing. It retains its material for as long as it is
// reachable, since only the garbage collector knows when the last Sealer is done.
type sealingKey struct {
	id string
	// since is when the key was made, until the end of sealing.
	since, until time.Time
	sets, bytes  atomic.Int64
	// checked is when the store last said, in Unix milliseconds, that a user's key was
	// not retired.
	checked  atomic.Int64
	material *material
}

// newSealingKey returns a key that takes over the caller's reference.
func (e *Envelope) newSealingKey(key WrappedKey, m *material) *sealingKey {
	k := &sealingKey{id: key.ID, since: key.CreatedAt, until: key.SealsUntil, material: m}
	k.checked.Store(e.opts.Now().UnixMilli())
	runtime.AddCleanup(k, (*material).release, m)
	return k
}

// Sealer seals under a data key in memory, so that sealing can't fail. Get one before
// doing what can't be repeated, and don't keep it: the data key stays in memory as long
// as the Sealer.
type Sealer struct{ key *sealingKey }

// Seal seals plaintext to its binding.
func (s Sealer) Seal(plaintext []byte, b Binding) Blob {
	s.key.sets.Add(1)
	s.key.bytes.Add(int64(len(plaintext)))
	blob := sealWith(s.key.material.aead, s.key.id, plaintext, b)
	runtime.KeepAlive(s.key)
	return blob
}

// Expired reports whether sealing has ended for the data key at now. It may be pruned soon,
// and what it seals afterwards never opens.
func (s Sealer) Expired(now time.Time) bool { return !now.Before(s.key.until) }

// Sealer returns a sealer under the active data key of a user (empty: for what belongs to
// none), and replaces a key that has reached a limit. The error wraps ErrKMS or is the
// store's.
func (e *Envelope) Sealer(ctx context.Context, user string) (Sealer, error) {
	scope := e.scopeOf(user)
	key, ok := e.active.Get(scope)
	if ok && scope != "" && !e.notRetired(ctx, key) {
		e.active.Remove(scope)
		ok = false
	}
	if ok && e.within(key, e.opts.MaxAge) {
		return Sealer{key}, nil
	}
	bridges := ok && e.within(key, e.opts.MaxAge+e.opts.Outage)
	renew := func(ctx context.Context) (*sealingKey, error) { return e.renewActive(ctx, scope) }
	if away, due := e.gate(e.opts.KeyID).outage(e.opts.Now()); bridges && away {
		if due {
			startCall(ctx, e, &e.renew, scope, renew) // nobody waits for it
		}
		return Sealer{key}, nil
	}
	fresh, err := await[*sealingKey](ctx, startCall(ctx, e, &e.renew, scope, renew))
	switch {
	case err == nil:
		return Sealer{fresh}, nil
	case bridges && !Refused(err):
		return Sealer{key}, nil
	}
	return Sealer{}, err
}

// within reports whether a key is below an age and all limits.
func (e *Envelope) within(key *sealingKey, age time.Duration) bool {
	return e.current(key, age) && key.sets.Load() < e.opts.MaxSets && key.bytes.Load() < e.opts.MaxBytes
}

// current reports whether a key is below an age and not retired.
func (e *Envelope) current(key *sealingKey, age time.Duration) bool {
	now := e.opts.Now()
	return now.Sub(key.since) < age && now.Before(key.until) && key.since.UnixMilli() >= e.retired.Load()
}

// userKeyCheck is how long a user's key may seal after the user's erasure has retired it
// in the store. Pruning waits longer.
const userKeyCheck = time.Minute

// notRetired reports whether a user's key is not retired in the store, which it asks from time
// to time. If the store fails, the key still seals: nothing can be stored now anyway.
func (e *Envelope) notRetired(ctx context.Context, key *sealingKey) bool {
	now := e.opts.Now()
	if now.Sub(time.UnixMilli(key.checked.Load())) < userKeyCheck {
		return true
	}
	wrapped, err := e.opts.Store.Key(ctx, key.id)
	if err == nil {
		key.checked.Store(now.UnixMilli())
	}
	return err == nil && now.Before(wrapped.SealsUntil) || err != nil && !errors.Is(err, ErrUnknownKey)
}

// RetireBefore ends sealing for the data keys made before t. Present sealers still work.
func (e *Envelope) RetireBefore(t time.Time) {
	for before := e.retired.Load(); before < t.UnixMilli(); before = e.retired.Load() {
		if e.retired.CompareAndSwap(before, t.UnixMilli()) {
			e.DropAged()
			return
		}
	}
}

// renewActive makes a stored data key of the same user, or a new one, the active key of a
// scope.
func (e *Envelope) renewActive(ctx context.Context, scope string) (*sealingKey, error) {
	key, ok := e.active.Peek(scope)
	if ok && e.within(key, e.opts.MaxAge) {
		return key, nil // a caller before us has just renewed it
	}
	fresh, err := e.fromStore(ctx, scope, key)
	if fresh == nil && err == nil {
		fresh, err = e.generate(ctx, scope)
	}
	if err != nil {
		if Refused(err) && e.active.Remove(scope) {
			go runtime.GC() // to wipe it soon
		}
		return nil, err
	}
	e.active.Add(scope, fresh)
	if e.closed.Load() {
		e.active.Purge()
	}
	return fresh, nil
}

// fromStore returns a user's key from the store, unless it is the one that is used up; nil:
// there is none.
func (e *Envelope) fromStore(ctx context.Context, scope string, usedUp *sealingKey) (*sealingKey, error) {
	if scope == "" {
		return nil, nil
	}
	since := e.opts.Now().Add(time.Millisecond - e.opts.MaxAge)
	if retired := time.UnixMilli(e.retired.Load()); retired.After(since) {
		since = retired
	}
	wrapped, err := e.opts.Store.SealingKey(ctx, scope, since, e.opts.Now())
	if errors.Is(err, ErrUnknownKey) || err == nil && usedUp != nil && wrapped.ID == usedUp.id {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for a user's data key: %w", err)
	}
	m, err := e.materialOf(ctx, wrapped.ID)
	if errors.Is(err, ErrWrappedKey) || errors.Is(err, ErrUnknownKey) {
		return nil, nil // a key that can't open must not seal
	}
	if err != nil {
		return nil, err
	}
	return e.newSealingKey(wrapped, m), nil
}

// generate makes KMS generate a data key, and stores it.
func (e *Envelope) generate(ctx context.Context, scope string) (*sealingKey, error) {
	var raw [16]byte
	if _, err := io.ReadFull(e.opts.Rand, raw[:]); err != nil {
		return nil, fmt.Errorf("naming a data key: %w", err)
	}
	id := hex.EncodeToString(raw[:])
	out, err := callKMS(e, e.opts.KeyID, "GenerateDataKey", func(error) bool { return false }, func() (*kms.GenerateDataKeyOutput, error) {
		return e.opts.KMS.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{
			KeyId:             aws.String(e.opts.KeyID),
			KeySpec:           types.DataKeySpecAes256,
			EncryptionContext: KMSContext(id),
		})
	})
	if err != nil {
		return nil, fmt.Errorf("generating a data key: %w", err)
	}
	defer clear(out.Plaintext)
	now := e.opts.Now()
	made := now.UTC().Truncate(time.Millisecond)
	if retired := time.UnixMilli(e.retired.Load()).UTC(); made.Before(retired) {
		made = retired // by a clock ahead of ours
	}
	wrapped := WrappedKey{
		ID: id, Wrapped: out.CiphertextBlob, KEK: aws.ToString(out.KeyId), CreatedAt: made,
		SealsUntil: made.Add(e.opts.MaxAge + e.opts.Outage), Scope: scope,
	}
	if err := e.opts.Store.PutKey(ctx, wrapped); err != nil {
		return nil, fmt.Errorf("storing a new data key: %w", err)
	}
	m, err := e.newMaterial(out.Plaintext)
	if err != nil {
		return nil, err
	}
	m.retain() // one for opening, one for sealing
	e.remember(&openingKey{id: id, kek: wrapped.KEK, scope: scope, since: now, material: m})
	return e.newSealingKey(wrapped, m), nil
}
