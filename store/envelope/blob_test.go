package envelope_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/store/envelope"
)

var bindings = rapid.Custom(func(t *rapid.T) envelope.Binding {
	return envelope.Binding{
		Purpose: rapid.String().Draw(t, "purpose"), User: rapid.String().Draw(t, "user"), Broker: rapid.String().Draw(t, "broker"),
		Grant: rapid.String().Draw(t, "grant"), Version: rapid.Int64().Draw(t, "version"),
	}
})

func TestRoundTrip(t *testing.T) {
	f := newFixture(t)
	sealing, opening := f.envelope(), f.envelope()
	sealer, err := sealing.Sealer(t.Context(), "user")
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		plaintext := rapid.SliceOf(rapid.Byte()).Draw(t, "plaintext")
		b := bindings.Draw(t, "binding")
		blob := sealer.Seal(plaintext, b)
		if len(plaintext) > 8 {
			require.NotContains(t, string(blob.Data), string(plaintext))
		}
		got, err := opening.Open(t.Context(), blob, b)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plaintext, got))
	})
	require.Equal(t, 1, f.generated())
	require.Equal(t, 1, f.decrypted())
}

func TestTheSamePlaintextSealsDifferently(t *testing.T) {
	e := newFixture(t).envelope()
	require.NotEqual(t, seal(t, e, "token").Data, seal(t, e, "token").Data)
}

func TestEveryChangedBitIsRefused(t *testing.T) {
	e := newFixture(t).envelope()
	blob := seal(t, e, "a token set")
	for i := range len(blob.Data) * 8 {
		changed := envelope.Blob{KeyID: blob.KeyID, Data: bytes.Clone(blob.Data)}
		changed.Data[i/8] ^= 1 << (i % 8)
		_, err := e.Open(t.Context(), changed, binding)
		require.ErrorIs(t, err, envelope.ErrSealed, "bit %d", i)
	}
	requireOpens(t, e, blob, "a token set")
}

func TestEveryOtherLengthIsRefused(t *testing.T) {
	e := newFixture(t).envelope()
	blob := seal(t, e, "a token set")
	for i := range blob.Data {
		_, err := e.Open(t.Context(), envelope.Blob{KeyID: blob.KeyID, Data: blob.Data[:i]}, binding)
		require.ErrorIs(t, err, envelope.ErrSealed, "cut at %d", i)
	}
	_, err := e.Open(t.Context(), envelope.Blob{KeyID: blob.KeyID, Data: append(bytes.Clone(blob.Data), 0)}, binding)
	require.ErrorIs(t, err, envelope.ErrSealed)
}

func TestABlobOpensOnlyWhereItBelongs(t *testing.T) {
	e := newFixture(t).envelope()
	blob := seal(t, e, "a token set")
	for name, change := range map[string]func(*envelope.Binding){
		"purpose":                          func(b *envelope.Binding) { b.Purpose = envelope.PurposeRecovery },
		"user":                             func(b *envelope.Binding) { b.User = "other" },
		"broker":                           func(b *envelope.Binding) { b.Broker = "other" },
		"grant":                            func(b *envelope.Binding) { b.Grant = "other" },
		"older version":                    func(b *envelope.Binding) { b.Version-- },
		"newer version":                    func(b *envelope.Binding) { b.Version++ },
		"user and broker swapped":          func(b *envelope.Binding) { b.User, b.Broker = b.Broker, b.User },
		"a letter moved to the next field": func(b *envelope.Binding) { b.User, b.Broker = "use", "rbroker" },
		"nothing stated":                   func(b *envelope.Binding) { *b = envelope.Binding{} },
	} {
		b := binding
		change(&b)
		_, err := e.Open(t.Context(), blob, b)
		require.ErrorIs(t, err, envelope.ErrSealed, name)
	}
	requireOpens(t, e, blob, "a token set")
}

func TestABlobMovedUnderAnotherKeyIsRefused(t *testing.T) {
	f := newFixture(t)
	a, b := f.envelope(), f.envelope()
	first, second := seal(t, a, "one"), seal(t, b, "two")
	require.NotEqual(t, first.KeyID, second.KeyID)
	_, err := a.Open(t.Context(), envelope.Blob{KeyID: second.KeyID, Data: first.Data}, binding)
	require.ErrorIs(t, err, envelope.ErrSealed)
}

func TestErrorsHoldNoPlaintext(t *testing.T) {
	e := newFixture(t).envelope()
	const token = "eyJ-a-token"
	b := binding
	b.User = "somebody"
	_, err := e.Open(t.Context(), seal(t, e, token), b)
	require.Error(t, err)
	require.False(t, strings.Contains(err.Error(), token) || strings.Contains(err.Error(), b.User))
}

func FuzzOpen(f *testing.F) {
	e := newFixture(f).envelope()
	const plaintext = "a token set"
	blob := seal(f, e, plaintext)
	f.Add(blob.KeyID, blob.Data, binding.Purpose, binding.User, binding.Broker, binding.Grant, binding.Version)
	f.Add(blob.KeyID, blob.Data[:29], binding.Purpose, binding.User, binding.Broker, binding.Grant, binding.Version)
	f.Add(blob.KeyID, blob.Data[:28], "", "", "", "", int64(0))
	f.Add("", []byte{}, "", "", "", "", int64(-1))
	f.Add("other", []byte{1}, binding.Purpose, "userb", "roker", binding.Grant, binding.Version)
	f.Fuzz(func(t *testing.T, key string, data []byte, purpose, user, broker, grant string, version int64) {
		b := envelope.Binding{Purpose: purpose, User: user, Broker: broker, Grant: grant, Version: version}
		got, err := e.Open(t.Context(), envelope.Blob{KeyID: key, Data: data}, b)
		switch {
		case key != blob.KeyID:
			require.ErrorIs(t, err, envelope.ErrUnknownKey)
		case bytes.Equal(data, blob.Data) && b == binding:
			require.NoError(t, err)
			require.Equal(t, plaintext, string(got))
		default:
			require.ErrorIs(t, err, envelope.ErrSealed)
			require.Nil(t, got)
		}
	})
}

func BenchmarkSealOpen(b *testing.B) {
	e := newFixture(b).envelope()
	plaintext := bytes.Repeat([]byte("x"), 1500)
	b.SetBytes(int64(len(plaintext)))
	b.ReportAllocs()
	for b.Loop() {
		sealer, err := e.Sealer(b.Context(), "user")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := e.Open(b.Context(), sealer.Seal(plaintext, binding), binding); err != nil {
			b.Fatal(err)
		}
	}
}
