package kmssim_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"
)

func TestParametersOutOfBounds(t *testing.T) {
	s := runNew(t)
	blob := s.seal(t, "plaintext", nil)
	id := &s.arn
	full := map[string]string{"name": strings.Repeat("x", 8188)}
	over := map[string]string{"name": strings.Repeat("x", 8189)}
	require.Equal(t, "fits", s.open(t, s.seal(t, "fits", full), full))

	encrypt := func(in kms.EncryptInput) error { _, err := s.Encrypt(t.Context(), &in); return err }
	decrypt := func(in kms.DecryptInput) error { _, err := s.Decrypt(t.Context(), &in); return err }
	generate := func(in kms.GenerateDataKeyInput) error { _, err := s.GenerateDataKey(t.Context(), &in); return err }
	for name, err := range map[string]error{
		"plaintext too long":     encrypt(kms.EncryptInput{KeyId: id, Plaintext: make([]byte, 4097)}),
		"plaintext empty":        encrypt(kms.EncryptInput{KeyId: id, Plaintext: []byte{}}),
		"key empty":              encrypt(kms.EncryptInput{KeyId: aws.String(""), Plaintext: []byte("x")}),
		"key too long":           encrypt(kms.EncryptInput{KeyId: aws.String(strings.Repeat("x", 2049)), Plaintext: []byte("x")}),
		"context on encrypt":     encrypt(kms.EncryptInput{KeyId: id, Plaintext: []byte("x"), EncryptionContext: over}),
		"algorithm unknown":      encrypt(kms.EncryptInput{KeyId: id, Plaintext: []byte("x"), EncryptionAlgorithm: "ROT13"}),
		"context on decrypt":     decrypt(kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: over}),
		"blob missing":           decrypt(kms.DecryptInput{}),
		"blob too long":          decrypt(kms.DecryptInput{CiphertextBlob: make([]byte, 6145)}),
		"modifier without dry":   decrypt(kms.DecryptInput{KeyId: id, DryRunModifiers: ignoreCiphertext}),
		"modifier without key":   decrypt(kms.DecryptInput{DryRun: aws.Bool(true), DryRunModifiers: ignoreCiphertext}),
		"modifier unknown":       decrypt(kms.DecryptInput{KeyId: id, DryRun: aws.Bool(true), DryRunModifiers: []types.DryRunModifierType{"X"}}),
		"context on generate":    generate(kms.GenerateDataKeyInput{KeyId: id, KeySpec: types.DataKeySpecAes256, EncryptionContext: over}),
		"neither spec nor bytes": generate(kms.GenerateDataKeyInput{KeyId: id}),
		"both spec and bytes":    generate(kms.GenerateDataKeyInput{KeyId: id, KeySpec: types.DataKeySpecAes256, NumberOfBytes: aws.Int32(32)}),
		"spec unknown":           generate(kms.GenerateDataKeyInput{KeyId: id, KeySpec: "AES_512"}),
		"no bytes":               generate(kms.GenerateDataKeyInput{KeyId: id, NumberOfBytes: aws.Int32(0)}),
		"too many bytes":         generate(kms.GenerateDataKeyInput{KeyId: id, NumberOfBytes: aws.Int32(1025)}),
	} {
		t.Run(name, func(t *testing.T) { requireCode(t, err, "ValidationException") })
	}

	err := encrypt(kms.EncryptInput{KeyId: id, Plaintext: []byte("x"), EncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha256})
	require.ErrorAs(t, err, new(*types.InvalidKeyUsageException))
	recipient := &types.RecipientInfo{AttestationDocument: []byte("x")}
	require.ErrorAs(t, decrypt(kms.DecryptInput{CiphertextBlob: blob, Recipient: recipient}),
		new(*types.UnsupportedOperationException))
}

var ignoreCiphertext = []types.DryRunModifierType{types.DryRunModifierTypeIgnoreCiphertext}

func TestDryRunTellsWhetherItWouldSucceed(t *testing.T) {
	s := runNew(t)
	blob := s.seal(t, "plaintext", purpose)
	dry, id, ref := aws.Bool(true), &s.arn, aws.String(keyAlias)

	calls := func() map[string]error {
		_, encrypt := s.Encrypt(t.Context(), &kms.EncryptInput{KeyId: id, Plaintext: []byte("x"), DryRun: dry})
		_, decrypt := s.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: purpose, DryRun: dry})
		_, ignoring := s.Decrypt(t.Context(), &kms.DecryptInput{KeyId: ref, DryRun: dry, DryRunModifiers: ignoreCiphertext})
		_, generate := s.GenerateDataKey(t.Context(), &kms.GenerateDataKeyInput{KeyId: id, KeySpec: types.DataKeySpecAes256, DryRun: dry})
		_, without := s.GenerateDataKeyWithoutPlaintext(t.Context(), &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: id, KeySpec: types.DataKeySpecAes256, DryRun: dry})
		_, reEncrypt := s.ReEncrypt(t.Context(), &kms.ReEncryptInput{CiphertextBlob: blob, SourceEncryptionContext: purpose, DestinationKeyId: id, DryRun: dry})
		return map[string]error{
			"Encrypt": encrypt, "Decrypt": decrypt, "Decrypt ignoring": ignoring,
			"GenerateDataKey": generate, "GenerateDataKeyWithoutPlaintext": without, "ReEncrypt": reEncrypt,
		}
	}
	for name, err := range calls() {
		require.ErrorAs(t, err, new(*types.DryRunOperationException), name)
	}

	_, err := s.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, DryRun: dry})
	require.ErrorAs(t, err, new(*types.InvalidCiphertextException))

	_, err = s.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: id})
	require.NoError(t, err)
	for name, err := range calls() {
		require.ErrorAs(t, err, new(*types.DisabledException), name)
	}
}
