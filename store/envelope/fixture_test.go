package envelope_test

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/clocktest"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim/kmssimtest"
	"github.com/latchkey/latchkey/events/options/optionstest"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/envelope/envelopetest"
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
	keys   *envelopetest.Keys
	clock  *clocktest.Clock
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	sim := kmssimtest.Start(t, alias)
	return &fixture{
		sim: sim.KMS, client: sim.Client(kmssimtest.Once),
		keys:  &envelopetest.Keys{},
		clock: clocktest.New(time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)),
	}
}

// options are those of an envelope over the fixture.
func (f *fixture) options() envelope.Options {
	return envelope.Options{KMS: f.client, Store: f.keys, KeyID: alias, Outage: outage, Now: f.clock.Now}
}

func (f *fixture) envelope() *envelope.Envelope { return newEnvelope(f.options()) }

// newEnvelope is the envelope of a process that has just started.
func newEnvelope(o envelope.Options) *envelope.Envelope {
	e, err := envelope.New(o)
	if err != nil {
		panic(err) // an option is missing
	}
	return e
}

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

func TestEveryRequiredOptionIsNamed(t *testing.T) {
	o := envelope.Options{KMS: switching{}, Store: &envelopetest.Keys{}, KeyID: alias}
	optionstest.Required(t, envelope.New, o, "KMS", "Store", "KeyID")
}
