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
		require.Equal(t, account, *m.AWSAccountId)
		require.True(t, start.Equal(*m.CreationDate), m.CreationDate)
		require.True(t, m.Enabled)
		require.Equal(t, types.KeyStateEnabled, m.KeyState)
		require.Equal(t, types.KeySpecSymmetricDefault, m.KeySpec)
		require.False(t, *m.MultiRegion)

		_, err = s.Encrypt(t.Context(), &kms.EncryptInput{KeyId: &name, Plaintext: []byte("x")})
		require.NoError(t, err, name)
	}
}

func TestUnknownKeys(t *testing.T) {
	s := runNew(t)
	id := s.arn[strings.LastIndex(s.arn, "/")+1:]
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
		_, err = s.Encrypt(t.Context(), &kms.EncryptInput{KeyId: &name, Plaintext: []byte("x")})
		require.ErrorAs(t, err, new(*types.NotFoundException), name)
	}
}

func TestMultiRegionKey(t *testing.T) {
	s := runNew(t)
	made, err := s.Client.CreateKey(t.Context(), &kms.CreateKeyInput{
		MultiRegion: aws.Bool(true),
		Description: aws.String("everywhere"),
	})
	require.NoError(t, err)
	m := made.KeyMetadata
	require.Regexp(t, "^mrk-[0-9a-f]{32}$", *m.KeyId)
	require.True(t, *m.MultiRegion)
	require.Equal(t, "everywhere", *m.Description)
	require.Equal(t, *m.Arn, *m.MultiRegionConfiguration.PrimaryKey.Arn)

	sealed, err := s.Encrypt(t.Context(), &kms.EncryptInput{KeyId: m.KeyId, Plaintext: []byte("x")})
	require.NoError(t, err)
	require.Equal(t, *m.Arn, *sealed.KeyId)
	require.Equal(t, "x", s.open(t, sealed.CiphertextBlob, nil))
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
		require.ErrorAs(t, err, new(*types.UnsupportedOperationException), name)
	}
	_, err := s.Client.CreateKey(t.Context(), &kms.CreateKeyInput{Description: aws.String(strings.Repeat("x", 8193))})
	requireCode(t, err, "ValidationException")
}

func TestDisabledKeyDoesNothingUntilEnabled(t *testing.T) {
	s := runNew(t)
	blob := s.seal(t, "plaintext", nil)
	for range 2 { // disabling a disabled key is fine
		_, err := s.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: &s.arn})
		require.NoError(t, err)
	}

	_, err := s.GenerateDataKey(t.Context(), &kms.GenerateDataKeyInput{KeyId: &s.arn, KeySpec: types.DataKeySpecAes256})
	require.ErrorAs(t, err, new(*types.DisabledException))
	_, err = s.Encrypt(t.Context(), &kms.EncryptInput{KeyId: &s.arn, Plaintext: []byte("x")})
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
	require.Equal(t, "plaintext", s.open(t, blob, nil))
}

func TestManagingAKeyTakesNoAlias(t *testing.T) {
	s := runNew(t)
	for name, code := range map[string]string{keyAlias: "NotFoundException", "none": "NotFoundException", "": "ValidationException"} {
		_, err := s.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: &name})
		requireCode(t, err, code)
		_, err = s.EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: &name})
		requireCode(t, err, code)
		_, err = s.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String("alias/new"), TargetKeyId: &name})
		requireCode(t, err, code)
		_, err = s.ListAliases(t.Context(), &kms.ListAliasesInput{KeyId: &name})
		requireCode(t, err, code)
	}
}

func TestCreateAlias(t *testing.T) {
	s := runNew(t)
	key := s.newKey(t)
	create := func(name string) error {
		_, err := s.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: &name, TargetKeyId: key.KeyId})
		return err
	}
	require.NoError(t, create("alias/second/of-it_1"))
	out, err := s.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String("alias/second/of-it_1")})
	require.NoError(t, err)
	require.Equal(t, *key.Arn, *out.KeyMetadata.Arn)

	require.ErrorAs(t, create(keyAlias), new(*types.AlreadyExistsException))
	for _, name := range []string{"second", "alias/", "alias/ä", "alias/aws/ebs"} {
		require.ErrorAs(t, create(name), new(*types.InvalidAliasNameException), name)
	}
	requireCode(t, create(""), "ValidationException")
	requireCode(t, create("alias/"+strings.Repeat("x", 256)), "ValidationException")
}

func TestListAliasesInPages(t *testing.T) {
	s := runNew(t)
	key := s.newKey(t)
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("alias/%d", i)
		want = append(want, name)
		_, err := s.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: &name, TargetKeyId: key.Arn})
		require.NoError(t, err)
	}
	var ofKey, all []string
	pages := kms.NewListAliasesPaginator(s.Client, &kms.ListAliasesInput{KeyId: key.KeyId, Limit: aws.Int32(3)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Aliases), 3)
		for _, a := range page.Aliases {
			require.Equal(t, *key.KeyId, *a.TargetKeyId)
			require.Equal(t, fmt.Sprintf("arn:aws:kms:%s:%s:%s", region, account, *a.AliasName), *a.AliasArn)
			require.True(t, start.Equal(*a.CreationDate))
			ofKey = append(ofKey, *a.AliasName)
		}
	}
	require.Equal(t, want, ofKey)

	page, err := s.ListAliases(t.Context(), &kms.ListAliasesInput{})
	require.NoError(t, err)
	require.False(t, page.Truncated)
	for _, a := range page.Aliases {
		all = append(all, *a.AliasName)
	}
	require.Equal(t, append(want, keyAlias), all)

	for _, limit := range []int32{0, 101} {
		_, err = s.ListAliases(t.Context(), &kms.ListAliasesInput{Limit: &limit})
		requireCode(t, err, "ValidationException")
	}
	_, err = s.ListAliases(t.Context(), &kms.ListAliasesInput{Marker: aws.String("x")})
	require.ErrorAs(t, err, new(*types.InvalidMarkerException))
}
