package envelope

import (
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
)

// Options for New. Zero limits mean the defaults in parentheses.
type Options struct {
	KMS   KMS
	Store KeyStore
	// KeyID names the KEK: a key id, key ARN, alias name or alias ARN.
	KeyID string
	// Region is that of the KMS client. Data keys under a multi-Region key are
	// unwrapped by its replica there. Empty: by the key that wrapped them.
	Region string
	// Timeout bounds one KMS call with its retries (5 s).
	Timeout time.Duration
	// PerUser gives each user data keys of their own. Else all users share one at
	// a time.
	PerUser bool
	// MaxAge is how long a data key seals (24 h).
	MaxAge time.Duration
	// MaxSets and MaxBytes bound what one data key seals (2^20 blobs, 2^33
	// bytes), far below the 2^32 blobs that random nonces allow.
	MaxSets, MaxBytes int64
	// CacheSize and CacheAge bound the keys kept for opening (1000, 1 h). As
	// many keys for sealing are kept.
	CacheSize int
	CacheAge  time.Duration
	// Outage is how much longer keys seal past MaxAge and open past CacheAge
	// while KMS can't be reached (0: not at all).
	Outage time.Duration
	// Now is the clock (time.Now).
	Now func() time.Time
	// Rand names new keys (crypto/rand).
	Rand io.Reader
	// OnKMS is told of every KMS call, for counting.
	OnKMS func(operation string, err error)
}

// Envelope seals and opens under cached data keys. It is safe for concurrent
// use.
type Envelope struct {
	opts Options

	renew  singleflight.Group
	active *lru.Cache[string, *sealingKey] // by scope
	open   singleflight.Group
	cache  *lru.Cache[string, *openingKey] // by id

	gatesMu sync.Mutex
	gates   map[string]*gate

	// retired is the time, in Unix milliseconds, before which data keys were
	// made that seal no more.
	retired atomic.Int64
	// inMemory counts the data keys that are not wiped.
	inMemory atomic.Int64
	closed   atomic.Bool
}

// New returns an Envelope; it calls KMS only when first used.
func New(o Options) *Envelope {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.MaxAge == 0 {
		o.MaxAge = 24 * time.Hour
	}
	if o.MaxSets == 0 {
		o.MaxSets = 1 << 20
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 33
	}
	if o.CacheSize <= 0 {
		o.CacheSize = 1000
	}
	if o.CacheAge == 0 {
		o.CacheAge = time.Hour
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
	return &Envelope{
		opts: o, gates: map[string]*gate{},
		active: must(lru.New[string, *sealingKey](o.CacheSize)),
		cache:  must(lru.NewWithEvict(o.CacheSize, func(_ string, key *openingKey) { key.material.release() })),
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // only for a size below 1
	}
	return v
}

// Close lets go of all data keys and wipes them, those for sealing as soon as
// their last sealer is done. Work that is still under way can be finished, but
// no key is kept any more.
func (e *Envelope) Close() {
	e.closed.Store(true)
	e.active.Purge()
	e.cache.Purge()
	runtime.GC() // finds the keys for sealing that nobody can reach
}

// DropAged lets go of the keys for opening that are past their age and what an
// outage adds to it, and of the keys for sealing that seal no more. It happens
// by itself only when another key comes in, so a caller with a clock should
// call it from time to time.
func (e *Envelope) DropAged() {
	for _, key := range e.cache.Values() {
		if !e.young(key, e.opts.CacheAge+e.opts.Outage) {
			e.cache.Remove(key.id)
		}
	}
	for _, name := range e.active.Keys() {
		if key, ok := e.active.Peek(name); ok && !e.current(key, e.opts.MaxAge+e.opts.Outage) {
			e.active.Remove(name)
		}
	}
}

// Forget lets go of the data keys that belong to a user, if each has their own.
// It does not stop work of that user that is under way from getting new ones.
func (e *Envelope) Forget(user string) {
	own := ScopeOf(user)
	if own == "" {
		return
	}
	for _, key := range e.cache.Values() {
		if key.scope == own {
			e.cache.Remove(key.id)
		}
	}
	if e.active.Remove(own) {
		go runtime.GC()
	}
}

// drop lets go of one data key at once, wherever it is: it is gone, or KMS has
// refused it.
func (e *Envelope) drop(id string) {
	e.cache.Remove(id)
	for _, name := range e.active.Keys() {
		if key, ok := e.active.Peek(name); ok && key.id == id {
			e.active.Remove(name)
			go runtime.GC() // the sooner it is wiped
		}
	}
}

// CachedKeys returns how many keys for opening are in memory.
func (e *Envelope) CachedKeys() int { return e.cache.Len() }

// KeysInMemory returns how many data keys are in memory and not wiped.
func (e *Envelope) KeysInMemory() int { return int(e.inMemory.Load()) }

// newMaterial makes counted material of a plain data key.
func (e *Envelope) newMaterial(key []byte) (*material, error) {
	m, err := newMaterial(key, func() { e.inMemory.Add(-1) })
	if err == nil {
		e.inMemory.Add(1)
	}
	return m, err
}

// begin starts a call, or joins the one that is under way: concurrent callers
// share one. The call has its own time limit, so that one caller's end does not
// fail the others.
func begin[T any](ctx context.Context, e *Envelope, group *singleflight.Group, id string, call func(context.Context) (T, error)) <-chan singleflight.Result {
	return group.DoChan(id, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.opts.Timeout)
		defer cancel()
		return call(ctx)
	})
}

// await waits for a call that begin returned.
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
