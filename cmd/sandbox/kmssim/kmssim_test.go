package kmssim_test

import (
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/events/secret"
)

const (
	region      = "eu-central-1"
	account     = "111122223333"
	accessKeyID = "AKIAEXAMPLE"
	accessKey   = "not-so-secret"
	keyAlias    = "alias/tokens"
)

// service is a running KMS with one key, and the SDK's client of it.
type service struct {
	*kmssim.KMS
	*kms.Client
	url string
	arn string // of the key that keyAlias names
}

func options(dir string) kmssim.Options {
	return kmssim.Options{
		Dir:             dir,
		Region:          region,
		AccessKeyID:     accessKeyID,
		SecretAccessKey: secret.New(accessKey),
	}
}

func run(t *testing.T, opts kmssim.Options) service {
	t.Helper()
	sim, err := kmssim.Open(opts)
	require.NoError(t, err)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	arn, err := sim.CreateKey(keyAlias)
	require.NoError(t, err)
	return service{KMS: sim, Client: once(sim.Config(server.URL)), url: server.URL, arn: arn}
}

func runNew(t *testing.T) service {
	t.Helper()
	return run(t, options(t.TempDir()))
}

// once is a client that does not retry.
func once(cfg aws.Config) *kms.Client {
	return kms.NewFromConfig(cfg, func(o *kms.Options) { o.RetryMaxAttempts = 1 })
}

// newKey makes one more key through the API.
func (s service) newKey(t *testing.T) *types.KeyMetadata {
	t.Helper()
	out, err := s.Client.CreateKey(t.Context(), &kms.CreateKeyInput{})
	require.NoError(t, err)
	return out.KeyMetadata
}

// seal makes a data key, and returns it sealed and in the clear.
func (s service) seal(t *testing.T, context map[string]string) (blob []byte, plaintext string) {
	t.Helper()
	out, err := s.GenerateDataKey(t.Context(), &kms.GenerateDataKeyInput{
		KeyId:             aws.String(s.arn),
		KeySpec:           types.DataKeySpecAes256,
		EncryptionContext: context,
	})
	require.NoError(t, err)
	return out.CiphertextBlob, string(out.Plaintext)
}

func (s service) open(t *testing.T, blob []byte, context map[string]string) string {
	t.Helper()
	out, err := s.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: context})
	require.NoError(t, err)
	return string(out.Plaintext)
}

// requireCode checks for an error that has no type of its own in the SDK.
func requireCode(t *testing.T, err error, code string) {
	t.Helper()
	var apiErr smithy.APIError
	require.ErrorAs(t, err, &apiErr)
	require.Equal(t, code, apiErr.ErrorCode())
}
