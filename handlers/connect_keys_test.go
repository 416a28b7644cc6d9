package handlers

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/sealing"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

const day = 24 * time.Hour

// keyring is a database with the keys of any number of workers, and a clock.
type keyring struct {
	*fixture
	db    *enginestest.Database
	store *store.Store

	mu  sync.Mutex
	now time.Time
}

func newKeyring(t *testing.T) *keyring {
	t.Helper()
	f := &fixture{t: t, logs: &enginestest.Text{}}
	k := &keyring{fixture: f, db: enginestest.MongoDB(t), now: time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)}
	f.dead = &DeadLetters{DeadLettersOptions{Envelope: f.envelope()}}
	k.store = k.open(patience)
	return k
}

func (k *keyring) open(timeout time.Duration) *store.Store {
	k.t.Helper()
	s, err := store.Open(k.t.Context(), store.Options{URI: secret.New(k.db.URI()), Database: enginestest.Name(k.t), Timeout: timeout})
	require.NoError(k.t, err)
	k.t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

func (k *keyring) clock() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

func (k *keyring) pass(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = k.now.Add(d)
}

// worker returns the keys as another worker has them, with nothing in memory.
func (k *keyring) worker() *ConnectKeys {
	keys, err := NewConnectKeys(ConnectKeysOptions{
		Store: k.store, Envelope: k.dead.opts.Envelope, Config: config.Default().Connect, CacheAge: time.Hour, Now: k.clock, Log: zap.NewNop(),
	})
	require.NoError(k.t, err)
	return keys
}

func (k *keyring) public(c *ConnectKeys) events.TokenKeys {
	k.t.Helper()
	keys, err := c.Public(k.t.Context())
	require.NoError(k.t, err)
	return keys
}

// sealed seals to the key to use, as a publisher does.
func (k *keyring) sealed(keys events.TokenKeys, plaintext string) (body []byte) {
	k.t.Helper()
	jwks, err := json.Marshal(keys)
	require.NoError(k.t, err)
	key, err := sealing.ParseKeys(jwks)
	require.NoError(k.t, err)
	body, err = key.Seal([]byte(plaintext))
	require.NoError(k.t, err)
	return body
}

func (k *keyring) seal(keys events.TokenKeys) (jwe string) {
	k.t.Helper()
	body := k.sealed(keys, "the body")
	var out struct{ Sealed string }
	require.NoError(k.t, json.Unmarshal(body, &out))
	return out.Sealed
}

func (k *keyring) opens(c *ConnectKeys, jwe string) {
	k.t.Helper()
	plaintext, err := c.Open(k.t.Context(), jwe, time.Time{})
	require.NoError(k.t, err)
	require.Equal(k.t, "the body", string(plaintext))
}

func TestConnectKeysRotateWithOverlap(t *testing.T) {
	k := newKeyring(t)
	a, b := k.worker(), k.worker()
	require.NoError(t, a.Maintain(t.Context()))
	require.NoError(t, b.Maintain(t.Context()))
	first := k.public(a)
	require.Len(t, first.Keys, 1)
	require.Equal(t, first, k.public(b))
	require.Equal(t, first.Keys[0].Thumbprint(), first.Keys[0].KeyID)
	early := k.seal(first)
	k.opens(b, early)

	k.pass(30*day - time.Second)
	require.NoError(t, a.Maintain(t.Context()))
	require.Equal(t, first, k.public(a))
	k.pass(time.Second)
	require.NoError(t, b.Maintain(t.Context()))
	second := k.public(a)
	require.Len(t, second.Keys, 2)
	require.Equal(t, first.Keys[0], second.Keys[1], "the new one comes first")
	require.NotEqual(t, first.Keys[0], second.Keys[0])
	k.opens(a, k.seal(second))
	late := k.seal(first) // by a publisher who has not asked again yet

	k.pass(day)
	require.Equal(t, second.Keys[:1], k.public(a).Keys)
	for range 2 {
		k.pass(29*day + 12*time.Hour)
		require.NoError(t, a.Maintain(t.Context()))
		if k.clock().Sub(time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)) < 90*day {
			k.opens(k.worker(), early)
			k.opens(k.worker(), late)
		}
	}
	require.NoError(t, a.Maintain(t.Context()))
	for _, worker := range []*ConnectKeys{a, k.worker()} {
		_, err := worker.Open(t.Context(), early, time.Time{})
		var invalid *events.InvalidError
		require.ErrorAs(t, err, &invalid)
		require.ErrorContains(t, err, "one that was deleted")
	}
	k.opens(k.worker(), k.seal(second))
}

func TestOneOfManyWorkersMakesTheNextKey(t *testing.T) {
	k := newKeyring(t)
	for n := 1; n <= 3; n++ {
		var wg sync.WaitGroup
		failed := make(chan error, 8)
		for range 8 {
			wg.Go(func() { failed <- k.worker().Maintain(t.Context()) })
		}
		wg.Wait()
		for range 8 {
			require.NoError(t, <-failed)
		}
		keys, err := k.store.ConnectKeys(t.Context())
		require.NoError(t, err)
		require.Len(t, keys, n)
		require.EqualValues(t, n, keys[0].Sequence)
		k.pass(30 * day)
	}
}

// Whoever writes to the database must not have connects sealed to his own key.
func TestForgedConnectKeysAreNotGivenOut(t *testing.T) {
	k := newKeyring(t)
	require.NoError(t, k.worker().Maintain(t.Context()))
	honest := k.public(k.worker())
	stored, err := k.store.ConnectKeys(t.Context())
	require.NoError(t, err)
	foreign, err := sealing.GenerateKey()
	require.NoError(t, err)
	jwk, err := json.Marshal(foreign.Public().JWK())
	require.NoError(t, err)

	forged := stored[0]
	forged.Sequence, forged.KeyID, forged.Public = 2, foreign.Public().ID(), string(jwk)
	require.NoError(t, k.store.AddConnectKey(t.Context(), forged))
	moved := stored[0] // an old key passed off as the newest
	moved.Sequence = 3
	require.NoError(t, k.store.AddConnectKey(t.Context(), moved))
	require.Equal(t, honest, k.public(k.worker()))

	require.NoError(t, k.store.DeleteConnectKey(t.Context(), 1))
	_, err = k.worker().Public(t.Context())
	require.Error(t, err)
	// What does not open may be put right, so it is no fault of the message.
	_, err = k.worker().Open(t.Context(), k.seal(honest), time.Time{})
	require.Error(t, err)
	require.NotErrorAs(t, err, new(*events.InvalidError))
}

// TestConnectsForUnknownKeysCostFewReads: who makes up a key has the database read
// once for all that NATS took in until then, or that come at once. A key that was
// made since is found.
func TestConnectsForUnknownKeysCostFewReads(t *testing.T) {
	k := newKeyring(t)
	a, b := k.worker(), k.worker()
	a.opts.ClockSkew = time.Second
	require.NoError(t, a.Maintain(t.Context()))
	stranger, err := sealing.GenerateKey()
	require.NoError(t, err)
	unknown := k.seal(events.TokenKeys{Keys: []events.JWK{stranger.Public().JWK()}})
	var reads atomic.Int64
	k.db.Proxy().Swallow(func(command, _ string) bool {
		if command == "find" {
			reads.Add(1)
		}
		return false
	})
	refused := func(taken time.Time) {
		t.Helper()
		_, err := a.Open(t.Context(), unknown, taken)
		require.ErrorAs(t, err, new(*events.InvalidError))
	}
	before := k.clock().Add(-2 * a.opts.ClockSkew)
	for range 100 {
		refused(before)
	}
	require.Zero(t, reads.Load(), "the keys were read since")

	k.pass(time.Hour)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { refused(k.clock()) })
	}
	all.Wait()
	require.EqualValues(t, 1, reads.Load())

	k.pass(30 * day)
	require.NoError(t, b.Maintain(t.Context())) // makes a key of which a has not heard
	for _, ahead := range []time.Duration{0, a.opts.ClockSkew / 2, -a.opts.ClockSkew / 2, time.Hour} {
		fresh := k.worker()
		fresh.opts.ClockSkew = a.opts.ClockSkew
		fresh.asOf = k.clock().Add(-time.Nanosecond)
		plaintext, err := fresh.Open(t.Context(), k.seal(k.public(b)), k.clock().Add(ahead))
		require.NoError(t, err, ahead)
		require.Equal(t, "the body", string(plaintext))
	}
	k.opens(a, k.seal(k.public(b)))
}

func TestConnectsWaitWhileKeysCannotBeRead(t *testing.T) {
	k := newKeyring(t)
	a := k.worker()
	require.NoError(t, a.Maintain(t.Context()))
	keys := k.public(a)
	jwe := k.seal(keys)

	fresh := k.worker()
	fresh.opts.Envelope = k.reopened()
	k.kms.Faults().Always(kmssim.ServiceUnavailable)
	_, err := fresh.Open(t.Context(), jwe, time.Time{})
	require.True(t, refresher.Outage(err), "%v", err)
	_, err = fresh.Public(t.Context())
	require.True(t, refresher.Outage(err), "%v", err)
	k.opens(a, jwe) // has it in memory
	k.kms.Faults().Clear()
	fresh.opts.Envelope = k.reopened() // the other one asks KMS again only after a pause
	k.opens(fresh, jwe)

	impatient := k.open(500 * time.Millisecond)
	a.opts.Store = impatient
	k.db.Stop()
	late := k.worker()
	late.opts.Store = impatient
	_, err = late.Open(t.Context(), jwe, time.Time{})
	require.True(t, refresher.Outage(err), "%v", err)
	require.True(t, refresher.Outage(late.Maintain(t.Context())))
	_, err = late.Public(t.Context())
	require.True(t, refresher.Outage(err), "%v", err)
	require.Equal(t, keys, k.public(a), "publishers go on with what is known")
	k.opens(a, jwe)
	k.pass(2 * time.Hour)
	require.Error(t, a.Maintain(t.Context()))
	require.Empty(t, a.cache, "private keys stay in memory for a bounded time")
	k.db.Restart()
	k.opens(k.worker(), jwe)
}

// TestASealedConnectIsSearchedForUsersOnlyIfItDoesNotDecode: an erasure finds its dead
// letter by them.
func TestASealedConnectIsSearchedForUsersOnlyIfItDoesNotDecode(t *testing.T) {
	k := newKeyring(t)
	keys := k.worker()
	require.NoError(t, keys.Maintain(t.Context()))
	for plaintext, users := range map[string][]string{
		`{"userId":"u","payload":{"accessToken":{"brokerType":"b","accountTokens":[{"accessToken":"t"}]}}}`: nil,
		`{"userId":"u","payload":7}`:           {"u"},
		`{"userId":"u","userId":"v"}`:          {"u", "v"},
		`{"userId":"u","payload":{"broken":}}`: {"u"},
	} {
		d := &delivery{}
		_, err := decodeConnected(t.Context(), keys, config.Default().Connect, k.sealed(k.public(keys), plaintext), d)
		require.Equal(t, users == nil, err == nil, plaintext)
		require.Equal(t, users, d.Users, plaintext)
		require.Equal(t, users != nil, d.Undecodable, plaintext)
	}
}
