// Package envelope seals and opens secrets by envelope encryption.
//
// A key encryption key (KEK) never leaves KMS. Under it KMS makes data keys: AES-256
// keys whose wrapped form is stored, and whose plain form is in memory for a while. A
// data key seals many blobs with AES-256-GCM, each under a fresh random nonce.
//
// A blob does not contain what it belongs to. The caller states it as a [Binding] on both
// sides. A blob that was copied to another user, broker or grant, rolled back to an older
// version, or moved under another data key does not open. The KMS encryption context
// binds a data key to its id.
package envelope

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/latchkey/latchkey/events/options"
)

// Options for New. Zero limits mean the defaults in parentheses.
type Options struct {
	KMS   KMS
	Store KeyStore
	// KeyID names the KEK: a key id, key ARN, alias name or alias ARN.
	KeyID string
	// Region is the Region of the KMS client. The replica there unwraps the data keys
	// of a multi-Region key. Empty: the key that wrapped them does.
	Region string
	// Timeout bounds one KMS call with its retries (5 s).
	Timeout time.Duration
	// PerUser gives each user data keys of their own. Else all users share them.
	PerUser bool
	// MaxAge is how long a data key seals (24 h).
	MaxAge time.Duration
	// MaxSets and MaxBytes bound what one data key seals (2^20 blobs, 2^33
	// bytes), far below the 2^32 blobs that random nonces allow.
	MaxSets, MaxBytes int64
	// CacheSize and CacheAge bound the keys that are cached for opening (1000, 1 h).
	// CacheSize also bounds those for sealing.
	CacheSize int
	CacheAge  time.Duration
	// Outage is how much longer keys seal past MaxAge and open past CacheAge
	// while KMS can't be reached (0: not at all).
	Outage time.Duration
	// Now is the clock (time.Now).
	Now func() time.Time
	// Rand names new keys (crypto/rand).
	Rand io.Reader
	// OnKMS observes every KMS call.
	OnKMS func(operation string, err error)
}

// Envelope seals and opens under cached data keys. It is safe for concurrent use.
type Envelope struct {
	opts Options

	renew  singleflight.Group
	active *lru.Cache[string, *sealingKey] // by scope
	open   singleflight.Group
	cache  *lru.Cache[string, *openingKey] // by id

	gates sync.Map // of *gate, by the KMS key as calls name it

	// retired is a time in Unix milliseconds: data keys made before it do not seal.
	retired atomic.Int64
	// inMemory counts the data keys in memory.
	inMemory atomic.Int64
	closed   atomic.Bool
}

// New returns an Envelope, which calls KMS only when it is used.
func New(o Options) (*Envelope, error) {
	if err := options.Require("an envelope", o, "KMS", "Store", "KeyID"); err != nil {
		return nil, err
	}
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.MaxAge = cmp.Or(o.MaxAge, 24*time.Hour)
	o.MaxSets = cmp.Or(o.MaxSets, 1<<20)
	o.MaxBytes = cmp.Or(o.MaxBytes, 1<<33)
	o.CacheAge = cmp.Or(o.CacheAge, time.Hour)
	if o.CacheSize <= 0 {
		o.CacheSize = 1000
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.OnKMS == nil {
		o.OnKMS = func(string, error) {}
	}
	e := &Envelope{opts: o}
	var err error
	if e.active, err = lru.New[string, *sealingKey](o.CacheSize); err != nil {
		return nil, err
	}
	e.cache, err = lru.NewWithEvict(o.CacheSize, func(_ string, key *openingKey) { key.material.release() })
	return e, err
}

// Close releases all data keys and wipes them, those for sealing once their last sealer
// is unreachable. Calls under way and later ones still work, but no key is cached.
func (e *Envelope) Close() {
	e.closed.Store(true)
	e.active.Purge()
	e.cache.Purge()
	runtime.GC() // finds the keys for sealing that are unreachable
}

// DropAged releases the keys that are past their age and what an outage adds to it. The
// Envelope itself calls it only when it caches a key, so callers should call it from time
// to time.
func (e *Envelope) DropAged() {
	for _, key := range e.cache.Values() {
		if !e.youngerThan(key, e.opts.CacheAge+e.opts.Outage) {
			e.cache.Remove(key.id)
		}
	}
	for _, name := range e.active.Keys() {
		if key, ok := e.active.Peek(name); ok && !e.current(key, e.opts.MaxAge+e.opts.Outage) {
			e.active.Remove(name)
		}
	}
}

// drop releases a data key that is gone or that KMS has refused.
func (e *Envelope) drop(id string) {
	e.cache.Remove(id)
	for _, name := range e.active.Keys() {
		if key, ok := e.active.Peek(name); ok && key.id == id {
			e.active.Remove(name)
			go runtime.GC() // to wipe it soon
		}
	}
}

func (e *Envelope) newMaterial(key []byte) (*material, error) {
	m, err := newMaterial(key, func() { e.inMemory.Add(-1) })
	if err == nil {
		e.inMemory.Add(1)
	}
	return m, err
}

// startCall starts a call, or joins the one under way. The call has a timeout of its own, so
// that it does not fail when one of its callers gives up.
func startCall[T any](ctx context.Context, e *Envelope, group *singleflight.Group, id string, call func(context.Context) (T, error)) <-chan singleflight.Result {
	return group.DoChan(id, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.opts.Timeout)
		defer cancel()
		return call(ctx)
	})
}

func await[T any](ctx context.Context, result <-chan singleflight.Result) (out T, err error) {
	select {
	case r := <-result:
		if r.Err != nil {
			return out, r.Err
		}
		return r.Val.(T), nil
	case <-ctx.Done():
		return out, fmt.Errorf("waiting for a data key: %w", ctx.Err())
	}
}
