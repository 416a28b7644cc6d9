// Package envelopetest gives tests a store of wrapped data keys.
package envelopetest

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/latchkey/latchkey/store/envelope"
)

// Keys is an [envelope.KeyStore] in memory that can be made to fail. The zero value is empty.
type Keys struct {
	mu   sync.Mutex
	byID map[string]envelope.WrappedKey
	fail error
}

func (k *Keys) PutKey(_ context.Context, key envelope.WrappedKey) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail == nil {
		k.put(key)
	}
	return k.fail
}

func (k *Keys) Key(_ context.Context, id string) (envelope.WrappedKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return envelope.WrappedKey{}, k.fail
	}
	key, ok := k.byID[id]
	if !ok {
		return key, envelope.ErrUnknownKey
	}
	return key, nil
}

func (k *Keys) SealingKey(_ context.Context, scope string, since, now time.Time) (found envelope.WrappedKey, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err = envelope.ErrUnknownKey
	for _, key := range k.byID {
		if key.Scope == scope && !key.CreatedAt.Before(since) && key.SealsUntil.After(now) && key.CreatedAt.After(found.CreatedAt) {
			found, err = key, nil
		}
	}
	return found, err
}

// FailWith has every call fail with an error until it is called with nil.
func (k *Keys) FailWith(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = err
}

// All returns a copy of what is stored.
func (k *Keys) All() map[string]envelope.WrappedKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.byID)
}

// Put replaces a stored key, as somebody with access to the database could.
func (k *Keys) Put(key envelope.WrappedKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.put(key)
}

// Remove takes a key away.
func (k *Keys) Remove(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.byID, id)
}

// put stores a key. The caller holds k.mu.
func (k *Keys) put(key envelope.WrappedKey) {
	if k.byID == nil {
		k.byID = map[string]envelope.WrappedKey{}
	}
	k.byID[key.ID] = key
}
