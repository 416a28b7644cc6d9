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
	blob, _ := s.seal(t, nil)
	id, dry := &s.arn, aws.Bool(true)
	full := map[string]string{"name": strings.Repeat("x", 8188)}
	over := map[string]string{"name": strings.Repeat("x", 8189)}
	fits, plaintext := s.seal(t, full)
	require.Equal(t, plaintext, s.open(t, fits, full))

	decrypt := func(in kms.DecryptInput) error { _, err := s.Decrypt(t.Context(), &in); return err }
	generate := func(in kms.GenerateDataKeyInput) error { _, err := s.GenerateDataKey(t.Context(), &in); return err }
	reEncrypt := func(in kms.ReEncryptInput) error { _, err := s.ReEncrypt(t.Context(), &in); return err }
	for name, err := range map[string]error{
		"key empty":              generate(kms.GenerateDataKeyInput{KeyId: aws.String(""), KeySpec: types.DataKeySpecAes256}),
		"key too long":           generate(kms.GenerateDataKeyInput{KeyId: aws.String(strings.Repeat("x", 2049)), KeySpec: types.DataKeySpecAes256}),
		"context on decrypt":     decrypt(kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: over}),
		"blob missing":           decrypt(kms.DecryptInput{}),
		"blob too long":          decrypt(kms.DecryptInput{CiphertextBlob: make([]byte, 6145)}),
		"context on generate":    generate(kms.GenerateDataKeyInput{KeyId: id, KeySpec: types.DataKeySpecAes256, EncryptionContext: over}),
		"no spec":                generate(kms.GenerateDataKeyInput{KeyId: id}),
		"spec unknown":           generate(kms.GenerateDataKeyInput{KeyId: id, KeySpec: "AES_512"}),
		"context of source":      reEncrypt(kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: id, SourceEncryptionContext: over}),
		"context of destination": reEncrypt(kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: id, DestinationEncryptionContext: over}),
	} {
		t.Run(name, func(t *testing.T) { requireCode(t, err, "ValidationException") })
	}
	// What is not simulated is refused and not passed over.
	for name, err := range map[string]error{
		"dry run of generate": generate(kms.GenerateDataKeyInput{KeyId: id, KeySpec: types.DataKeySpecAes256, DryRun: dry}),
		"dry run of decrypt":  decrypt(kms.DecryptInput{CiphertextBlob: blob, DryRun: dry}),
		"dry run of rewrap":   reEncrypt(kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: id, DryRun: dry}),
		"number of bytes":     generate(kms.GenerateDataKeyInput{KeyId: id, NumberOfBytes: aws.Int32(32)}),
		"algorithm":           decrypt(kms.DecryptInput{CiphertextBlob: blob, EncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha256}),
		"attestation":         decrypt(kms.DecryptInput{CiphertextBlob: blob, Recipient: &types.RecipientInfo{AttestationDocument: []byte("x")}}),
	} {
		requireCode(t, err, "ValidationException")
		require.ErrorContains(t, err, "not simulated", name)
	}
}
