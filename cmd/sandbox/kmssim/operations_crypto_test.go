package kmssim_test

import (
	"bytes"
	"maps"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var purpose = map[string]string{"purpose": "data-key", "environment": "test"}

func TestDataKeyComesBackThroughDecrypt(t *testing.T) {
	s := runNew(t)
	for name, in := range map[string]*kms.GenerateDataKeyInput{
		"AES_256": {KeySpec: types.DataKeySpecAes256},
		"AES_128": {KeySpec: types.DataKeySpecAes128},
	} {
		t.Run(name, func(t *testing.T) {
			in.KeyId = aws.String(keyAlias)
			in.EncryptionContext = purpose
			made, err := s.GenerateDataKey(t.Context(), in)
			require.NoError(t, err)
			require.Equal(t, s.arn, *made.KeyId)
			length := map[string]int{"AES_256": 32, "AES_128": 16}[name]
			require.Len(t, made.Plaintext, length)

			opened, err := s.Decrypt(t.Context(), &kms.DecryptInput{
				CiphertextBlob:    made.CiphertextBlob,
				EncryptionContext: purpose,
			})
			require.NoError(t, err)
			require.Equal(t, made.Plaintext, opened.Plaintext)
			require.Equal(t, s.arn, *opened.KeyId)
		})
	}
}

func TestDataKeysDiffer(t *testing.T) {
	s := runNew(t)
	in := &kms.GenerateDataKeyInput{KeyId: &s.arn, KeySpec: types.DataKeySpecAes256}
	a, err := s.GenerateDataKey(t.Context(), in)
	require.NoError(t, err)
	b, err := s.GenerateDataKey(t.Context(), in)
	require.NoError(t, err)
	require.NotEqual(t, a.Plaintext, b.Plaintext)
	require.NotContains(t, string(a.CiphertextBlob), string(a.Plaintext))
}

func TestDecryptWantsTheSameEncryptionContext(t *testing.T) {
	s := runNew(t)
	for name, c := range map[string]struct{ sealed, opened map[string]string }{
		"missing":         {purpose, nil},
		"part of it":      {purpose, map[string]string{"purpose": "data-key"}},
		"more":            {nil, purpose},
		"other value":     {map[string]string{"a": "b"}, map[string]string{"a": "c"}},
		"case":            {map[string]string{"a": "b"}, map[string]string{"A": "b"}},
		"shifted border":  {map[string]string{"a": "bc"}, map[string]string{"ab": "c"}},
		"one pair or two": {map[string]string{"a": "b", "c": "d"}, map[string]string{"a": "bcd"}},
	} {
		t.Run(name, func(t *testing.T) {
			blob, plaintext := s.seal(t, c.sealed)
			require.Equal(t, plaintext, s.open(t, blob, c.sealed))
			_, err := s.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: c.opened})
			require.ErrorAs(t, err, new(*types.InvalidCiphertextException))
		})
	}
}

func TestOnlyTheSameEncryptionContextOpens(t *testing.T) {
	s := runNew(t)
	contexts := rapid.MapOfN(rapid.StringN(1, 4, -1), rapid.StringN(0, 4, -1), 0, 3)
	rapid.Check(t, func(rt *rapid.T) {
		sealed, other := contexts.Draw(rt, "sealed"), contexts.Draw(rt, "other")
		blob, plaintext := s.seal(t, sealed)
		require.Equal(rt, plaintext, s.open(t, blob, maps.Clone(sealed)))
		_, err := s.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: other})
		if maps.Equal(sealed, other) {
			require.NoError(rt, err)
		} else {
			require.ErrorAs(rt, err, new(*types.InvalidCiphertextException))
		}
	})
}

func TestAlteredBlobDoesNotOpen(t *testing.T) {
	s := runNew(t)
	blob, _ := s.seal(t, purpose)
	refuse := func(rt require.TestingT, altered []byte, keyRef *string) {
		_, err := s.Decrypt(t.Context(), &kms.DecryptInput{
			CiphertextBlob: altered, EncryptionContext: purpose, KeyId: keyRef,
		})
		require.ErrorAs(rt, err, new(*types.InvalidCiphertextException))
	}
	rapid.Check(t, func(rt *rapid.T) {
		altered := bytes.Clone(blob)
		altered[rapid.IntRange(0, len(blob)-1).Draw(rt, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		refuse(rt, altered, nil)
		refuse(rt, altered, &s.arn)
	})
	for n := 1; n < len(blob); n++ {
		refuse(t, blob[:n], nil)
	}
	refuse(t, append(bytes.Clone(blob), 0), nil)
	refuse(t, []byte("no blob at all"), nil)
}

func TestBlobOfOneKeyDoesNotOpenUnderAnother(t *testing.T) {
	s := runNew(t)
	other := s.newKey(t)
	blob, _ := s.seal(t, nil)
	copy(blob[1:], *other.KeyId)
	_, err := s.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, KeyId: other.KeyId})
	require.ErrorAs(t, err, new(*types.InvalidCiphertextException))
}

func TestDecryptChecksTheNamedKey(t *testing.T) {
	s := runNew(t)
	other := s.newKey(t)
	blob, plaintext := s.seal(t, nil)
	for _, ref := range []*string{other.KeyId, other.Arn} {
		_, err := s.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, KeyId: ref})
		require.ErrorAs(t, err, new(*types.IncorrectKeyException))
	}
	_, err := s.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, KeyId: aws.String("alias/none")})
	require.ErrorAs(t, err, new(*types.NotFoundException))
	out, err := s.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, KeyId: aws.String(keyAlias)})
	require.NoError(t, err)
	require.Equal(t, plaintext, string(out.Plaintext))
}

func TestReEncryptMovesToAnotherKeyAndContext(t *testing.T) {
	s := runNew(t)
	other := s.newKey(t)
	blob, plaintext := s.seal(t, purpose)
	moved := map[string]string{"moved": "yes"}
	in := kms.ReEncryptInput{
		CiphertextBlob:               blob,
		SourceEncryptionContext:      purpose,
		SourceKeyId:                  aws.String(keyAlias),
		DestinationKeyId:             other.KeyId,
		DestinationEncryptionContext: moved,
	}
	out, err := s.ReEncrypt(t.Context(), &in)
	require.NoError(t, err)
	require.Equal(t, s.arn, *out.SourceKeyId)
	require.Equal(t, *other.Arn, *out.KeyId)
	require.Equal(t, plaintext, s.open(t, out.CiphertextBlob, moved))
	require.Equal(t, plaintext, s.open(t, blob, purpose), "the old blob stays good")

	wrongSource := in
	wrongSource.SourceKeyId = other.KeyId
	_, err = s.ReEncrypt(t.Context(), &wrongSource)
	require.ErrorAs(t, err, new(*types.IncorrectKeyException))

	wrongContext := in
	wrongContext.SourceEncryptionContext = moved
	_, err = s.ReEncrypt(t.Context(), &wrongContext)
	require.ErrorAs(t, err, new(*types.InvalidCiphertextException))

	noDestination := in
	noDestination.DestinationKeyId = aws.String("alias/none")
	_, err = s.ReEncrypt(t.Context(), &noDestination)
	require.ErrorAs(t, err, new(*types.NotFoundException))

	tooMuch := in
	tooMuch.DestinationEncryptionContext = map[string]string{"a": strings.Repeat("x", 8192)}
	_, err = s.ReEncrypt(t.Context(), &tooMuch)
	requireCode(t, err, "ValidationException")

	_, err = s.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: other.KeyId})
	require.NoError(t, err)
	_, err = s.ReEncrypt(t.Context(), &in)
	require.ErrorAs(t, err, new(*types.DisabledException))
}
