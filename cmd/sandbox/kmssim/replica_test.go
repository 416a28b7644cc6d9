package kmssim_test

import (
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/events/secret"
)

// inRegion starts the service of a Region over a folder.
func inRegion(t *testing.T, name, dir string) (*kmssim.KMS, *kms.Client) {
	t.Helper()
	sim, err := kmssim.Open(kmssim.Options{Dir: dir, Region: name, AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: secret.New("example")})
	require.NoError(t, err)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	return sim, kms.NewFromConfig(sim.Config(server.URL), func(o *kms.Options) { o.RetryMaxAttempts = 1 })
}

func TestReplicas(t *testing.T) {
	dir := t.TempDir()
	usSim, us := inRegion(t, "us-east-1", t.TempDir())
	euSim, _ := inRegion(t, "eu-central-1", dir)
	made, err := us.CreateKey(t.Context(), &kms.CreateKeyInput{MultiRegion: aws.Bool(true)})
	require.NoError(t, err)
	primary := *made.KeyMetadata.Arn
	replica, err := usSim.Replicate(primary, euSim)
	require.NoError(t, err)
	_, err = usSim.Replicate(primary, euSim)
	require.Error(t, err, "it exists")

	_, eu := inRegion(t, "eu-central-1", dir) // as its file has it
	described, err := eu.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &replica})
	require.NoError(t, err)
	require.Equal(t, replica, *described.KeyMetadata.Arn)
	require.True(t, *described.KeyMetadata.MultiRegion)

	names := map[string]string{"a": "b"}
	data, err := us.GenerateDataKey(t.Context(), &kms.GenerateDataKeyInput{KeyId: &primary, KeySpec: types.DataKeySpecAes256, EncryptionContext: names})
	require.NoError(t, err)
	opened, err := eu.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: data.CiphertextBlob, KeyId: &replica, EncryptionContext: names})
	require.NoError(t, err)
	require.Equal(t, data.Plaintext, opened.Plaintext)
	require.Equal(t, replica, *opened.KeyId)
	_, err = eu.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: data.CiphertextBlob, KeyId: &primary, EncryptionContext: names})
	require.ErrorAs(t, err, new(*types.NotFoundException), "a Region knows its own ARNs only")

	single, err := usSim.CreateKey("alias/single")
	require.NoError(t, err)
	for _, ref := range []string{single, "alias/none"} {
		_, err = usSim.Replicate(ref, euSim)
		require.Error(t, err)
	}
}

func TestAnAliasIsPointedElsewhere(t *testing.T) {
	dir := t.TempDir()
	sim, client := inRegion(t, "us-east-1", dir)
	_, err := sim.CreateKey("alias/a")
	require.NoError(t, err)
	second, err := sim.CreateKey("alias/b")
	require.NoError(t, err)
	move := func(alias, key string) error {
		_, err := client.UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: &alias, TargetKeyId: &key})
		return err
	}
	require.ErrorAs(t, move("alias/none", second), new(*types.NotFoundException))
	require.ErrorAs(t, move("alias/a", "alias/b"), new(*types.NotFoundException), "an alias is no target")
	require.NoError(t, move("alias/a", second))
	require.NoError(t, move("alias/a", second))
	_, client = inRegion(t, "us-east-1", dir)
	described, err := client.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String("alias/a")})
	require.NoError(t, err)
	require.Equal(t, second, *described.KeyMetadata.Arn)
}
