package envelope_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/store/envelope"
)

func TestAKeyIsUnwrappedOnceWithinItsAge(t *testing.T) {
	f := newFixture(t)
	blob := seal(t, f.envelope(), "x")
	e := f.envelope()
	require.False(t, e.Cached(blob.KeyID))
	requireOpens(t, e, blob, "x")
	f.clock.Advance(time.Hour - 1)
	require.True(t, e.Cached(blob.KeyID))
	requireOpens(t, e, blob, "x")
	require.Equal(t, 1, f.decrypted())
	f.clock.Advance(1)
	require.False(t, e.Cached(blob.KeyID))
	requireOpens(t, e, blob, "x")
	require.Equal(t, 2, f.decrypted())
}

func TestTheCacheIsBounded(t *testing.T) {
	f := newFixture(t)
	o := f.options()
	o.MaxSets = 1
	sealing := newEnvelope(o)
	blobs := []envelope.Blob{seal(t, sealing, "a"), seal(t, sealing, "b"), seal(t, sealing, "c")}

	o.CacheSize = 2
	e := newEnvelope(o)
	open := func(i int) int {
		before := f.decrypted()
		requireOpens(t, e, blobs[i], string(rune('a'+i)))
		return f.decrypted() - before
	}
	require.Equal(t, []int{1, 1, 0, 0}, []int{open(0), open(1), open(0), open(1)})
	require.Equal(t, 1, open(2), "pushes out the one not used for longest")
	require.Equal(t, []int{0, 0, 1}, []int{open(1), open(2), open(0)})
}

func TestOpeningFailsByKind(t *testing.T) {
	f := newFixture(t)
	blob := seal(t, f.envelope(), "x")

	_, err := f.envelope().Open(t.Context(), envelope.Blob{KeyID: "none", Data: blob.Data}, binding)
	require.ErrorIs(t, err, envelope.ErrUnknownKey)

	down := errors.New("database down")
	f.keys.FailWith(down)
	_, err = f.envelope().Open(t.Context(), blob, binding)
	require.ErrorIs(t, err, down)
	f.keys.FailWith(nil)

	for _, fault := range []kmssim.Fault{kmssim.Throttling, kmssim.Internal, kmssim.Disconnect} {
		f.sim.Faults().Next(1, fault)
		e := f.envelope()
		_, err = e.Open(t.Context(), blob, binding)
		require.ErrorIs(t, err, envelope.ErrKMS)
		require.NotErrorIs(t, err, envelope.ErrSealed)
		f.clock.Advance(pause)
		requireOpens(t, e, blob, "x")
	}
}

// What is wrong with a data key says nothing about the blobs under it: they
// must not be given up for it.
func requireKeyFault(t *testing.T, f *fixture, blob envelope.Blob, what string) {
	t.Helper()
	_, err := f.envelope().Open(t.Context(), blob, binding)
	require.ErrorIs(t, err, envelope.ErrWrappedKey, what)
	for _, other := range []error{envelope.ErrSealed, envelope.ErrUnknownKey, envelope.ErrKMS} {
		require.NotErrorIs(t, err, other, what)
	}
}

func TestAChangedWrappedKeyIsTold(t *testing.T) {
	f := newFixture(t)
	blob := seal(t, f.envelope(), "x")
	key := f.keys.All()[blob.KeyID]
	for i := range key.Wrapped {
		changed := key
		changed.Wrapped = bytes.Clone(key.Wrapped)
		changed.Wrapped[i] ^= 1
		f.keys.Put(changed)
		requireKeyFault(t, f, blob, "changed")
	}
	f.keys.Put(key)
	requireOpens(t, f.envelope(), blob, "x")
}

func TestAWrappedKeyUnderAnotherIDIsTold(t *testing.T) {
	f := newFixture(t)
	first, second := seal(t, f.envelope(), "one"), seal(t, f.envelope(), "two")
	swapped := f.keys.All()[second.KeyID]
	swapped.ID = first.KeyID
	f.keys.Put(swapped)
	requireKeyFault(t, f, first, "swapped")
	requireOpens(t, f.envelope(), second, "two")
}

func TestAWrongKEKOfAStoredKeyIsTold(t *testing.T) {
	f := newFixture(t)
	blob := seal(t, f.envelope(), "x")
	key := f.keys.All()[blob.KeyID]
	other, err := f.sim.CreateKey("alias/other")
	require.NoError(t, err)
	changed := key
	changed.KEK = other
	f.keys.Put(changed)
	requireKeyFault(t, f, blob, "another KMS key")
}

func TestADataKeyOfAnotherSizeIsTold(t *testing.T) {
	f := newFixture(t)
	blob := seal(t, f.envelope(), "x")
	short, err := f.client.GenerateDataKey(t.Context(), &kms.GenerateDataKeyInput{
		KeyId: aws.String(alias), KeySpec: types.DataKeySpecAes128, EncryptionContext: envelope.KMSContext(blob.KeyID),
	})
	require.NoError(t, err)
	f.keys.Put(envelope.WrappedKey{ID: blob.KeyID, Wrapped: short.CiphertextBlob, KEK: *short.KeyId})
	requireKeyFault(t, f, blob, "short")
}

func TestADisabledKEKPasses(t *testing.T) {
	f := newFixture(t)
	blob := seal(t, f.envelope(), "x")
	kek := aws.String(f.keys.All()[blob.KeyID].KEK)
	_, err := f.client.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: kek})
	require.NoError(t, err)
	_, err = f.envelope().Open(t.Context(), blob, binding)
	require.ErrorIs(t, err, envelope.ErrKMS)
	_, err = f.client.EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: kek})
	require.NoError(t, err)
	requireOpens(t, f.envelope(), blob, "x")
}

func TestOldBlobsOpenAfterTheKEKWasChanged(t *testing.T) {
	f := newFixture(t)
	blob := seal(t, f.envelope(), "x")
	next, err := f.sim.CreateKey("alias/next")
	require.NoError(t, err)
	o := f.options()
	o.KeyID = "alias/next"
	e := newEnvelope(o)
	fresh := seal(t, e, "y")
	require.Equal(t, next, f.keys.All()[fresh.KeyID].KEK)
	requireOpens(t, e, blob, "x")
}

func TestAgedKeysAreLetGo(t *testing.T) {
	f := newFixture(t)
	blob := seal(t, f.envelope(), "x")
	e := f.envelope()
	requireOpens(t, e, blob, "x")
	e.DropAged()
	require.Equal(t, 1, e.CachedKeys())
	f.clock.Advance(time.Hour + outage - 1)
	e.DropAged()
	require.Equal(t, 1, e.CachedKeys(), "it may be needed while KMS is away")
	f.clock.Advance(1)
	e.DropAged()
	require.Zero(t, e.CachedKeys())
}
