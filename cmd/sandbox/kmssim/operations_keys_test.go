package kmssim_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"
)

func TestDescribeKeyByEveryName(t *testing.T) {
	s := runNew(t)
	id := s.arn[strings.LastIndex(s.arn, "/")+1:]
	for _, name := range []string{
		id, s.arn, keyAlias, fmt.Sprintf("arn:aws:kms:%s:%s:%s", region, account, keyAlias),
	} {
		out, err := s.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &name})
		require.NoError(t, err, name)
		m := out.KeyMetadata
		require.Equal(t, s.arn, *m.Arn)
		require.Equal(t, id, *m.KeyId)
		require.True(t, m.Enabled)
		require.Equal(t, types.KeyStateEnabled, m.KeyState)
		require.False(t, *m.MultiRegion)

		_, err = s.GenerateDataKey(t.Context(), &kms.GenerateDataKeyInput{KeyId: &name, KeySpec: types.DataKeySpecAes256})
		require.NoError(t, err, name)
	}
}

func TestUnknownKeys(t *testing.T) {
	s := runNew(t)
	id := s.arn[strings.LastIndex(s.arn, "/")+1:]
	blob, _ := s.seal(t, nil)
	for _, name := range []string{
		"00000000-0000-4000-8000-000000000000",
		"alias/none",
		"nonsense",
		strings.ToUpper(id),
		fmt.Sprintf("arn:aws:kms:us-west-2:%s:key/%s", account, id),
		fmt.Sprintf("arn:aws:kms:%s:111111111111:key/%s", region, id),
		fmt.Sprintf("arn:aws:s3:%s:%s:key/%s", region, account, id),
		fmt.Sprintf("arn:aws:kms:%s:%s:%s", region, account, id),
		"arn:aws:kms",
	} {
		_, err := s.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &name})
		require.ErrorAs(t, err, new(*types.NotFoundException), name)
		_, err = s.GenerateDataKey(t.Context(), &kms.GenerateDataKeyInput{KeyId: &name, KeySpec: types.DataKeySpecAes256})
		require.ErrorAs(t, err, new(*types.NotFoundException), name)
		_, err = s.ReEncrypt(t.Context(), &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: &name})
		require.ErrorAs(t, err, new(*types.NotFoundException), name)
	}
}

func TestMultiRegionKey(t *testing.T) {
	s := runNew(t)
	made, err := s.Client.CreateKey(t.Context(), &kms.CreateKeyInput{MultiRegion: aws.Bool(true)})
	require.NoError(t, err)
	m := made.KeyMetadata
	require.Regexp(t, "^mrk-[0-9a-f]{32}$", *m.KeyId)
	require.True(t, *m.MultiRegion)

	sealed, err := s.GenerateDataKey(t.Context(), &kms.GenerateDataKeyInput{KeyId: m.KeyId, KeySpec: types.DataKeySpecAes256})
	require.NoError(t, err)
	require.Equal(t, *m.Arn, *sealed.KeyId)
	require.Equal(t, string(sealed.Plaintext), s.open(t, sealed.CiphertextBlob, nil))
}

func TestCreateKeyOfOtherKinds(t *testing.T) {
	s := runNew(t)
	for name, in := range map[string]*kms.CreateKeyInput{
		"spec":        {KeySpec: types.KeySpecRsa2048},
		"usage":       {KeyUsage: types.KeyUsageTypeSignVerify},
		"origin":      {Origin: types.OriginTypeExternal},
		"key store":   {CustomKeyStoreId: aws.String("cks-1")},
		"outside key": {XksKeyId: aws.String("x")},
	} {
		_, err := s.Client.CreateKey(t.Context(), in)
		require.ErrorContains(t, err, "not simulated", name)
		requireCode(t, err, "ValidationException")
	}
}

func TestDisabledKeyDoesNothingUntilEnabled(t *testing.T) {
	s := runNew(t)
	blob, plaintext := s.seal(t, nil)
	for range 2 { // disabling a disabled key is fine
		_, err := s.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: &s.arn})
		require.NoError(t, err)
	}

	_, err := s.GenerateDataKey(t.Context(), &kms.GenerateDataKeyInput{KeyId: &s.arn, KeySpec: types.DataKeySpecAes256})
	require.ErrorAs(t, err, new(*types.DisabledException))
	_, err = s.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
	require.ErrorAs(t, err, new(*types.DisabledException))
	_, err = s.ReEncrypt(t.Context(), &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: s.newKey(t).KeyId})
	require.ErrorAs(t, err, new(*types.DisabledException))
	described, err := s.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &s.arn})
	require.NoError(t, err)
	require.False(t, described.KeyMetadata.Enabled)
	require.Equal(t, types.KeyStateDisabled, described.KeyMetadata.KeyState)

	_, err = s.EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: &s.arn})
	require.NoError(t, err)
	require.Equal(t, plaintext, s.open(t, blob, nil))
}

func TestManagingAKeyTakesNoAlias(t *testing.T) {
	s := runNew(t)
	for name, code := range map[string]string{keyAlias: "NotFoundException", "none": "NotFoundException", "": "ValidationException"} {
		_, err := s.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: &name})
		requireCode(t, err, code)
		_, err = s.EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: &name})
		requireCode(t, err, code)
		_, err = s.UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: aws.String(keyAlias), TargetKeyId: &name})
		requireCode(t, err, code)
	}
}

func TestNamesOfAliases(t *testing.T) {
	s := runNew(t)
	arn, err := s.KMS.CreateKey("alias/second/of-it_1")
	require.NoError(t, err)
	out, err := s.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String("alias/second/of-it_1")})
	require.NoError(t, err)
	require.Equal(t, arn, *out.KeyMetadata.Arn)

	move := func(name string) error {
		_, err := s.UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: &name, TargetKeyId: &s.arn})
		return err
	}
	for _, name := range []string{"second", "alias/", "alias/ä", "alias/aws/ebs"} {
		requireCode(t, move(name), "InvalidAliasNameException")
	}
	requireCode(t, move(""), "ValidationException")
	requireCode(t, move("alias/"+strings.Repeat("x", 256)), "ValidationException")
}
