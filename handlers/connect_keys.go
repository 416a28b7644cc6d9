package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/events/sealing"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// ConnectKeys are the keys that publishers seal connects to. All workers share them
// through the database, which stores private keys encrypted by the envelope. A public key
// is handed out only if its private key opened, so that write access to the database does
// not suffice to have connects sealed to another key.
type ConnectKeys struct {
	opts    ConnectKeysOptions
	reading singleflight.Group
	mu      sync.Mutex
	cache   map[string]cachedKey // by key id
	known   []store.ConnectKey   // as last read, the newest first
	asOf    time.Time            // when that read began
}

// ConnectKeysOptions are the parts of ConnectKeys.
type ConnectKeysOptions struct {
	Store    *store.Store
	Envelope *envelope.Envelope
	Config   config.Connect
	// CacheAge is how long private keys stay in memory.
	CacheAge time.Duration
	// ClockSkew is by how much clocks may differ.
	ClockSkew time.Duration
	Now       func() time.Time
	Log       *zap.Logger
}

// NewConnectKeys returns the keys of an installation. Maintain makes the first.
func NewConnectKeys(o ConnectKeysOptions) (*ConnectKeys, error) {
	if err := options.Require("a set of connect keys", o, "Store", "Envelope", "Config", "Now", "Log"); err != nil {
		return nil, err
	}
	return &ConnectKeys{opts: o, cache: map[string]cachedKey{}}, nil
}

type cachedKey struct {
	key   sealing.PrivateKey
	since time.Time
}

// Another worker may add a key first so often, with a pause after each time.
const (
	maxAddAttempts = 10
	addPause       = 50 * time.Millisecond
)

// Maintain adds the first key, replaces one that is due, and deletes those whose
// retention has ended.
func (c *ConnectKeys) Maintain(ctx context.Context) error {
	c.dropAged()
	for range maxAddAttempts {
		keys, err := c.read(ctx)
		if err != nil {
			return err
		}
		if len(keys) > 0 && c.opts.Now().Before(keys[0].CreatedAt.Add(c.opts.Config.KeyRotation)) {
			return c.deleteOld(ctx, keys)
		}
		next := int64(1)
		if len(keys) > 0 {
			next = keys[0].Sequence + 1
		}
		err = c.add(ctx, next)
		if errors.Is(err, store.ErrConflict) {
			// Another worker was first. Its key can be read once a majority has it.
			if err := pause.For(ctx, addPause); err != nil {
				return err
			}
		} else if err != nil {
			return fmt.Errorf("making a connect key: %w", err)
		}
	}
	return errors.New("connect keys are due again as soon as they are made; is a clock wrong?")
}

// Run maintains the keys until ctx ends.
func (c *ConnectKeys) Run(ctx context.Context) {
	ticker := time.NewTicker(min(10*time.Minute, max(c.opts.Config.KeyRotation/10, time.Second), max(c.opts.CacheAge/10, time.Second)))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := c.Maintain(ctx); err != nil && ctx.Err() == nil {
				c.opts.Log.Warn("the connect keys could not be maintained; the next attempt follows", zap.Error(err))
			}
		case <-ctx.Done():
			return
		}
	}
}

// read returns the stored keys, the newest first.
func (c *ConnectKeys) read(ctx context.Context) ([]store.ConnectKey, error) {
	began := c.opts.Now()
	keys, err := c.opts.Store.ConnectKeys(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known, c.asOf = keys, began
	return keys, nil
}

// readSince returns the stored keys as they were at a time or later. It reads only if
// no read began since, once for all concurrent callers.
func (c *ConnectKeys) readSince(ctx context.Context, at time.Time) ([]store.ConnectKey, error) {
	now := c.opts.Now()
	if at.IsZero() || at.After(now) {
		at = now
	}
	keys, asOf := c.lastRead()
	for range 2 { // the first may have begun before; then the second does not
		if !asOf.Before(at) {
			break
		}
		if _, err, _ := c.reading.Do("", func() (any, error) { return c.read(context.WithoutCancel(ctx)) }); err != nil {
			return nil, err
		}
		keys, asOf = c.lastRead()
	}
	return keys, nil
}

func (c *ConnectKeys) lastRead() (keys []store.ConnectKey, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known, c.asOf
}

func (c *ConnectKeys) add(ctx context.Context, sequence int64) error {
	sealer, err := c.opts.Envelope.Sealer(ctx, "")
	if err != nil {
		return err
	}
	private, err := sealing.GenerateKey()
	if err != nil {
		return err
	}
	plain, err := private.Bytes()
	if err != nil {
		return err
	}
	defer clear(plain)
	public, _ := json.Marshal(private.Public().JWK()) // texts only
	key := store.ConnectKey{Sequence: sequence, KeyID: private.Public().ID(), Public: string(public), CreatedAt: store.Milli(c.opts.Now())}
	key.Sealed = sealer.Seal(plain, key.Binding())
	if err := c.opts.Store.AddConnectKey(ctx, key); err != nil {
		return err
	}
	c.opts.Log.Info("a new connect key", zap.String("connectKey", key.KeyID))
	return nil
}

// deleteOld deletes the keys that were replaced longer ago than their retention.
func (c *ConnectKeys) deleteOld(ctx context.Context, keys []store.ConnectKey) error {
	for i, key := range keys[1:] {
		replaced := keys[i].CreatedAt
		if c.opts.Now().Before(replaced.Add(c.opts.Config.KeyRetention)) {
			continue
		}
		if err := c.opts.Store.DeleteConnectKey(ctx, key.Sequence); err != nil {
			return err
		}
		c.mu.Lock()
		delete(c.cache, key.KeyID)
		c.mu.Unlock()
		c.opts.Log.Info("an old connect key is deleted", zap.String("connectKey", key.KeyID))
	}
	return nil
}

// Public returns the keys to hand out: the one to use first, then those that it replaced
// within connect.key_overlap. During an outage of the database they are the last known.
func (c *ConnectKeys) Public(ctx context.Context) (events.TokenKeys, error) {
	keys, err := c.read(ctx)
	if err != nil {
		if keys, _ = c.lastRead(); len(keys) == 0 {
			return events.TokenKeys{}, err
		}
	}
	var out events.TokenKeys
	var failed error
	for i, key := range keys {
		if i > 0 && !c.opts.Now().Before(keys[i-1].CreatedAt.Add(c.opts.Config.KeyOverlap)) {
			break
		}
		private, err := c.private(ctx, key)
		if err != nil {
			failed = err
			c.opts.Log.Error("a connect key does not open and is not given out", zap.String("connectKey", key.KeyID), zap.Error(err))
			continue
		}
		out.Keys = append(out.Keys, private.Public().JWK())
	}
	if len(out.Keys) == 0 {
		return events.TokenKeys{}, fmt.Errorf("no connect key can be given out: %w", failed)
	}
	return out, nil
}

// Open opens a connect that NATS stored at a time (zero: not known). A fault of the JWE
// is an *events.InvalidError; any other error says that the keys are not available now.
func (c *ConnectKeys) Open(ctx context.Context, jwe string, taken time.Time) ([]byte, error) {
	sealed, err := sealing.Parse(jwe)
	if err != nil {
		return nil, notOpened(err)
	}
	key, err := c.find(ctx, sealed.KeyID(), taken)
	if err != nil {
		return nil, err
	}
	plaintext, err := sealed.Open(key)
	if err != nil {
		return nil, notOpened(err)
	}
	return plaintext, nil
}

func notOpened(err error) error {
	return &events.InvalidError{Message: events.IntegrationConnected, Problem: err.Error()}
}

// find returns the private key with an id, to which a message was sealed that NATS stored
// at a time. Keys are stored before they are handed out. So a key that a later read did
// not find was deleted or never existed, and costs no other read.
func (c *ConnectKeys) find(ctx context.Context, id string, taken time.Time) (sealing.PrivateKey, error) {
	if key, ok := c.cached(id); ok {
		return key, nil
	}
	if !taken.IsZero() {
		taken = taken.Add(c.opts.ClockSkew)
	}
	keys, err := c.readSince(ctx, taken)
	if err != nil {
		return sealing.PrivateKey{}, err
	}
	if i := slices.IndexFunc(keys, func(key store.ConnectKey) bool { return key.KeyID == id }); i >= 0 {
		return c.private(ctx, keys[i])
	}
	return sealing.PrivateKey{}, notOpened(&sealing.OpenError{Problem: "kid: names no key that is known here, or one that was deleted"})
}

// private opens a stored private key, which must be the one that its id names.
func (c *ConnectKeys) private(ctx context.Context, key store.ConnectKey) (sealing.PrivateKey, error) {
	if private, ok := c.cached(key.KeyID); ok {
		return private, nil
	}
	plain, err := c.opts.Envelope.Open(ctx, key.Sealed, key.Binding())
	if err != nil {
		return sealing.PrivateKey{}, fmt.Errorf("opening connect key %q: %w", key.KeyID, err)
	}
	defer clear(plain)
	private, err := sealing.ParsePrivateKey(plain)
	if err != nil || private.Public().ID() != key.KeyID {
		return sealing.PrivateKey{}, fmt.Errorf("opening connect key %q: %w", key.KeyID, envelope.ErrSealed)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cache[key.KeyID] = cachedKey{private, c.opts.Now()}
	return private, nil
}

func (c *ConnectKeys) cached(id string) (sealing.PrivateKey, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, ok := c.cache[id]
	return found.key, ok && c.opts.Now().Sub(found.since) < c.opts.CacheAge
}

// dropAged removes private keys that have been cached for CacheAge.
func (c *ConnectKeys) dropAged() {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.cache, func(_ string, found cachedKey) bool { return c.opts.Now().Sub(found.since) >= c.opts.CacheAge })
}
