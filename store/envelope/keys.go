package envelope

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
)

// WrappedKey is the stored form of a data key: only KMS can unwrap it.
type WrappedKey struct {
	ID string `bson:"_id"`
	// Wrapped is KMS's ciphertext of the key.
	Wrapped []byte `bson:"wrapped"`
	// KEK is the ARN of the KMS key that wraps it.
	KEK       string    `bson:"kek"`
	CreatedAt time.Time `bson:"createdAt"`
}

// KeyStore keeps wrapped data keys.
type KeyStore interface {
	// PutKey stores a new key durably; it is used for sealing only after that.
	PutKey(ctx context.Context, key WrappedKey) error
	// Key returns a stored key, or an error that wraps ErrUnknownKey.
	Key(ctx context.Context, id string) (WrappedKey, error)
}

// KMS is the part of the KMS client that envelope encryption needs.
type KMS interface {
	GenerateDataKey(ctx context.Context, in *kms.GenerateDataKeyInput, opts ...func(*kms.Options)) (*kms.GenerateDataKeyOutput, error)
	Decrypt(ctx context.Context, in *kms.DecryptInput, opts ...func(*kms.Options)) (*kms.DecryptOutput, error)
}

var (
	// ErrUnknownKey: the data key of a blob is not stored. It does not pass by
	// itself: keys were deleted, or the database is another one.
	ErrUnknownKey = errors.New("unknown data key")
	// ErrWrappedKey: the data key of a blob is stored, but KMS does not unwrap
	// it. It does not pass by itself, yet says nothing about the blob, which
	// opens again once the right KMS key or the true wrapped key is back.
	ErrWrappedKey = errors.New("the stored data key does not unwrap: another KMS key, or changed from outside")
	// ErrKMS: a data key could not be had from KMS now. The caller keeps its
	// message and tries again.
	ErrKMS = errors.New("data key not available from KMS")
)

// Options for New. Zero limits mean the defaults in parentheses.
type Options struct {
	KMS   KMS
	Store KeyStore
	// KeyID names the KEK: a key id, key ARN, alias name or alias ARN.
	KeyID string
	// Timeout bounds one KMS call with its retries (5 s).
	Timeout time.Duration
	// MaxAge is how long a data key seals (24 h). When a successor can't be
	// had, the key goes on sealing for CacheAge more.
	MaxAge time.Duration
	// MaxSets and MaxBytes bound what one data key seals (2^20 blobs, 2^33
	// bytes), far below the 2^32 blobs that random nonces allow.
	MaxSets, MaxBytes int64
	// CacheSize and CacheAge bound the keys kept for opening (1000, 1 h).
	CacheSize int
	CacheAge  time.Duration
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

	mu     sync.Mutex
	active *dataKey

	renew singleflight.Group
	open  singleflight.Group
	cache *lru.Cache[string, *dataKey]
}

// dataKey is a data key in memory.
type dataKey struct {
	id     string
	aead   cipher.AEAD
	since  time.Time
	sets   atomic.Int64
	octets atomic.Int64
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
	cache, err := lru.New[string, *dataKey](o.CacheSize)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &Envelope{opts: o, cache: cache}
}

// Sealer seals under a data key that is already at hand, so that sealing can
// no longer fail. Get one before doing what can't be repeated.
type Sealer struct{ key *dataKey }

// Seal seals plaintext to its binding.
func (s Sealer) Seal(plaintext []byte, b Binding) Blob {
	s.key.sets.Add(1)
	s.key.octets.Add(int64(len(plaintext)))
	return sealWith(s.key.aead, s.key.id, plaintext, b)
}

// Sealer returns a sealer under the active data key, which is replaced first
// when it has reached a limit. The error wraps ErrKMS or is the store's.
func (e *Envelope) Sealer(ctx context.Context) (Sealer, error) {
	e.mu.Lock()
	key := e.active
	e.mu.Unlock()
	if key != nil && e.within(key, e.opts.MaxAge) {
		return Sealer{key}, nil
	}
	fresh, err := e.shared(ctx, &e.renew, "", e.newKey)
	if err == nil {
		return Sealer{fresh}, nil
	}
	if key != nil && e.within(key, e.opts.MaxAge+e.opts.CacheAge) {
		return Sealer{key}, nil
	}
	return Sealer{}, err
}

func (e *Envelope) within(key *dataKey, age time.Duration) bool {
	return e.opts.Now().Sub(key.since) < age &&
		key.sets.Load() < e.opts.MaxSets && key.octets.Load() < e.opts.MaxBytes
}

// Open opens a blob. The error wraps ErrSealed (for good), ErrUnknownKey or
// ErrWrappedKey (until somebody restores the key), ErrKMS (for now) or is the
// store's.
func (e *Envelope) Open(ctx context.Context, blob Blob, b Binding) ([]byte, error) {
	key, err := e.opening(ctx, blob.KeyID)
	if err != nil {
		return nil, err
	}
	return openWith(key.aead, blob, b)
}

func (e *Envelope) opening(ctx context.Context, id string) (*dataKey, error) {
	if key, ok := e.cache.Get(id); ok && e.opts.Now().Sub(key.since) < e.opts.CacheAge {
		return key, nil
	}
	return e.shared(ctx, &e.open, id, func(ctx context.Context) (*dataKey, error) { return e.unwrap(ctx, id) })
}

// shared lets concurrent callers share one call. The call has its own time
// limit, so that one caller's end does not fail the others.
func (e *Envelope) shared(ctx context.Context, group *singleflight.Group, id string, call func(context.Context) (*dataKey, error)) (*dataKey, error) {
	result := group.DoChan(id, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.opts.Timeout)
		defer cancel()
		return call(ctx)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*dataKey), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for a data key: %w", ctx.Err())
	}
}

// newKey makes, stores and activates a data key.
func (e *Envelope) newKey(ctx context.Context) (*dataKey, error) {
	e.mu.Lock()
	active := e.active
	e.mu.Unlock()
	if active != nil && e.within(active, e.opts.MaxAge) {
		return active, nil // a caller before us has just renewed it
	}
	var raw [16]byte
	if _, err := io.ReadFull(e.opts.Rand, raw[:]); err != nil {
		return nil, fmt.Errorf("naming a data key: %w", err)
	}
	id := hex.EncodeToString(raw[:])
	out, err := e.opts.KMS.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{
		KeyId:             aws.String(e.opts.KeyID),
		KeySpec:           types.DataKeySpecAes256,
		EncryptionContext: KMSContext(id),
	})
	e.opts.OnKMS("GenerateDataKey", err)
	if err != nil {
		return nil, fmt.Errorf("%w: generating a data key: %w", ErrKMS, err)
	}
	defer clear(out.Plaintext)
	aead, err := newAEAD(out.Plaintext)
	if err != nil {
		return nil, err
	}
	now := e.opts.Now()
	wrapped := WrappedKey{ID: id, Wrapped: out.CiphertextBlob, KEK: aws.ToString(out.KeyId), CreatedAt: now.UTC().Truncate(time.Millisecond)}
	if err := e.opts.Store.PutKey(ctx, wrapped); err != nil {
		return nil, fmt.Errorf("storing a new data key: %w", err)
	}
	key := &dataKey{id: id, aead: aead, since: now}
	e.mu.Lock()
	e.active = key
	e.mu.Unlock()
	e.remember(key)
	return key, nil
}

func (e *Envelope) remember(key *dataKey) {
	e.DropAged()
	e.cache.Add(key.id, key)
}

// DropAged lets go of the keys for opening that are past their age. It happens
// by itself only when another key comes in, so a caller with a clock should
// call it from time to time.
func (e *Envelope) DropAged() {
	for _, old := range e.cache.Values() {
		if e.opts.Now().Sub(old.since) >= e.opts.CacheAge {
			e.cache.Remove(old.id)
		}
	}
}

// CachedKeys returns how many keys for opening are in memory.
func (e *Envelope) CachedKeys() int { return e.cache.Len() }

// unwrap has KMS decrypt a stored data key.
func (e *Envelope) unwrap(ctx context.Context, id string) (*dataKey, error) {
	wrapped, err := e.opts.Store.Key(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("finding data key %q: %w", id, err)
	}
	out, err := e.opts.KMS.Decrypt(ctx, &kms.DecryptInput{
		CiphertextBlob:    wrapped.Wrapped,
		KeyId:             aws.String(wrapped.KEK),
		EncryptionContext: KMSContext(id),
	})
	e.opts.OnKMS("Decrypt", err)
	var invalid *types.InvalidCiphertextException
	var incorrect *types.IncorrectKeyException
	if errors.As(err, &invalid) || errors.As(err, &incorrect) {
		return nil, fmt.Errorf("unwrapping data key %q: %w", id, ErrWrappedKey)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: unwrapping data key %q: %w", ErrKMS, id, err)
	}
	defer clear(out.Plaintext)
	aead, err := newAEAD(out.Plaintext)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWrappedKey, err)
	}
	key := &dataKey{id: id, aead: aead, since: e.opts.Now()}
	e.remember(key)
	return key, nil
}

// KMSContext is the encryption context under which KMS wraps the data key with
// this id. A policy can demand the "app" pair; the id keeps one wrapped key
// from being passed off as another.
func KMSContext(id string) map[string]string {
	return map[string]string{"app": "latchkey", "data-key": id}
}
