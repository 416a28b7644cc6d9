package kmssim_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/events/secret"
)

// TestWebIdentity has the SDK find its credentials as in a pod.
func TestWebIdentity(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(token, []byte("identity"), 0o600))
	k, err := kmssim.Open(kmssim.Options{Dir: filepath.Join(dir, "keys"), AccessKeyID: "AKIA", SecretAccessKey: secret.New("secret")})
	require.NoError(t, err)
	_, err = k.CreateKey("alias/test")
	require.NoError(t, err)
	now := time.Now()
	sts := kmssim.NewSTS(k, kmssim.STSOptions{Token: secret.New("identity"), Lifetime: time.Minute, Clock: func() time.Time { return now }})
	kmsServer, stsServer := httptest.NewServer(k), httptest.NewServer(sts)
	defer kmsServer.Close()
	defer stsServer.Close()
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "", "AWS_REGION": "us-east-1",
		"AWS_CONFIG_FILE": filepath.Join(dir, "none"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(dir, "none"),
		"AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/worker", "AWS_ENDPOINT_URL_STS": stsServer.URL,
	} {
		t.Setenv(name, value)
	}
	client := func() *kms.Client {
		cfg, err := awsconfig.LoadDefaultConfig(t.Context(), awsconfig.WithRetryMaxAttempts(1))
		require.NoError(t, err)
		return kms.NewFromConfig(cfg, func(o *kms.Options) { o.BaseEndpoint = aws.String(kmsServer.URL) })
	}
	ask := func(c *kms.Client) error {
		_, err := c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String("alias/test")})
		return err
	}

	c := client()
	require.NoError(t, ask(c))
	require.NoError(t, ask(c))
	assert.Equal(t, 1, sts.Calls(), "credentials serve until they end")

	now = now.Add(time.Hour) // by the service's clock; the SDK still takes them for good
	var refused smithy.APIError
	require.ErrorAs(t, ask(c), &refused)
	assert.Equal(t, "ExpiredTokenException", refused.ErrorCode())

	for fault, code := range map[kmssim.Fault]string{
		kmssim.IDPCommunication: "IDPCommunicationError", kmssim.ExpiredToken: "ExpiredTokenException", kmssim.InvalidToken: "InvalidIdentityToken",
	} {
		sts.Faults().Always(fault)
		require.ErrorContains(t, ask(client()), code)
		sts.Faults().Clear()
	}
	require.NoError(t, os.WriteFile(token, []byte("another"), 0o600))
	require.ErrorContains(t, ask(client()), "InvalidIdentityToken")
}
