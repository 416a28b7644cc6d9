package envelope_test

import (
	"context"
	"maps"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store/envelope"
)

const (
	alias  = "alias/tokens"
	outage = 4 * time.Hour
	// pause is longer than any pause that a failure of KMS brings.
	pause = time.Minute
)

// fixture is a KMS behind the SDK's own client, a store of wrapped keys and a
// clock, from which envelopes are made.
type fixture struct {
	sim    *kmssim.KMS
	client *kms.Client
	keys   *memoryKeys
	clock  *clock
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	sim, err := kmssim.Open(kmssim.Options{Dir: t.TempDir(), AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: secret.New("example")})
	require.NoError(t, err)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	_, err = sim.CreateKey(alias)
	require.NoError(t, err)
	// Without the SDK's retries, whose waits only cost the tests time.
	client := kms.NewFromConfig(sim.Config(server.URL), func(o *kms.Options) { o.RetryMaxAttempts = 1 })
	return &fixture{
		sim: sim, client: client,
		keys:  &memoryKeys{byID: map[string]envelope.WrappedKey{}},
		clock: &clock{now: time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)},
	}
}

// options are those of an envelope over the fixture.
func (f *fixture) options() envelope.Options {
	return envelope.Options{KMS: f.client, Store: f.keys, KeyID: alias, Outage: outage, Now: f.clock.Now}
}

func (f *fixture) envelope() *envelope.Envelope { return envelope.New(f.options()) }

func (f *fixture) generated() int { return f.sim.Calls("GenerateDataKey") }
func (f *fixture) decrypted() int { return f.sim.Calls("Decrypt") }

// seal seals under a sealer that is fetched anew, as before every refresh.
func seal(t testing.TB, e *envelope.Envelope, plaintext string) envelope.Blob {
	t.Helper()
	s, err := e.Sealer(t.Context(), "user")
	require.NoError(t, err)
	return s.Seal([]byte(plaintext), binding)
}

func requireOpens(t testing.TB, e *envelope.Envelope, blob envelope.Blob, want string) {
	t.Helper()
	got, err := e.Open(t.Context(), blob, binding)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

var binding = envelope.Binding{Purpose: envelope.PurposeTokenSet, User: "user", Broker: "broker", Grant: "grant", Version: 7}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// memoryKeys is a KeyStore that can be made to fail.
type memoryKeys struct {
	mu   sync.Mutex
	byID map[string]envelope.WrappedKey
	fail error
}

func (m *memoryKeys) PutKey(_ context.Context, key envelope.WrappedKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail == nil {
		m.byID[key.ID] = key
	}
	return m.fail
}

func (m *memoryKeys) Key(_ context.Context, id string) (envelope.WrappedKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return envelope.WrappedKey{}, m.fail
	}
	key, ok := m.byID[id]
	if !ok {
		return key, envelope.ErrUnknownKey
	}
	return key, nil
}

func (m *memoryKeys) SealingKey(_ context.Context, scope string, since, now time.Time) (found envelope.WrappedKey, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	err = envelope.ErrUnknownKey
	for _, key := range m.byID {
		if key.Scope == scope && !key.CreatedAt.Before(since) && key.SealsUntil.After(now) && key.CreatedAt.After(found.CreatedAt) {
			found, err = key, nil
		}
	}
	return found, err
}

func (m *memoryKeys) failWith(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// all returns a copy of what is stored.
func (m *memoryKeys) all() map[string]envelope.WrappedKey {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.byID)
}

// put replaces a stored key, as somebody with access to the database could.
func (m *memoryKeys) put(key envelope.WrappedKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byID[key.ID] = key
}

func (m *memoryKeys) remove(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byID, id)
}

// hooked calls before a request and hands on what came back.
type hooked struct {
	envelope.KMS
	before func(ctx context.Context, operation string) error
	after  func(operation string, plaintext []byte)
}

func (h hooked) GenerateDataKey(ctx context.Context, in *kms.GenerateDataKeyInput, opts ...func(*kms.Options)) (*kms.GenerateDataKeyOutput, error) {
	if err := h.before(ctx, "GenerateDataKey"); err != nil {
		return nil, err
	}
	out, err := h.KMS.GenerateDataKey(ctx, in, opts...)
	if err == nil && h.after != nil {
		h.after("GenerateDataKey", out.Plaintext)
	}
	return out, err
}

func (h hooked) Decrypt(ctx context.Context, in *kms.DecryptInput, opts ...func(*kms.Options)) (*kms.DecryptOutput, error) {
	if err := h.before(ctx, "Decrypt"); err != nil {
		return nil, err
	}
	out, err := h.KMS.Decrypt(ctx, in, opts...)
	if err == nil && h.after != nil {
		h.after("Decrypt", out.Plaintext)
	}
	return out, err
}
