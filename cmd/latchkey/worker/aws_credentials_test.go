package worker_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/doctor"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/config"
)

// withoutAWS takes away what the AWS SDK looks at.
func withoutAWS(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
	} {
		t.Setenv(name, "")
		require.NoError(t, os.Unsetenv(name))
	}
	none := filepath.Join(t.TempDir(), "none")
	t.Setenv("AWS_CONFIG_FILE", none)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// Credentials that are missing are called that, and the error says what to set.
func TestAWSCredentialsThatAreMissingAreCalledThat(t *testing.T) {
	withoutAWS(t)
	cfg := config.KMS{KeyID: "alias/test", Region: "eu-central-1", Endpoint: "http://127.0.0.1:1", Timeout: 5 * time.Second}
	ask := func() error {
		client, err := worker.KMS(t.Context(), cfg)
		if err == nil {
			_, err = client.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &cfg.KeyID})
		}
		return err
	}
	var missing *worker.CredentialsError
	err := ask()
	require.ErrorAs(t, err, &missing)
	require.ErrorContains(t, err, "the AWS SDK gets no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")

	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/worker")
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", filepath.Join(t.TempDir(), "none"))
	err = ask()
	require.ErrorAs(t, err, &missing)
	require.ErrorContains(t, err, "AWS_WEB_IDENTITY_TOKEN_FILE")
	require.NotContains(t, err.Error(), "set AWS_ACCESS_KEY_ID")

	t.Setenv("AWS_PROFILE", "nobody")
	err = ask()
	require.ErrorAs(t, err, &missing)
	require.ErrorContains(t, err, "AWS_PROFILE names")
}

func TestAnAWSRegionThatIsMissingIsCalledThat(t *testing.T) {
	withoutAWS(t)
	_, err := worker.KMS(t.Context(), config.KMS{KeyID: "alias/test", Timeout: time.Second})
	require.ErrorIs(t, err, worker.ErrNoRegion)
	require.ErrorContains(t, err, "LATCHKEY_KMS_REGION")
	client, err := worker.KMS(t.Context(), config.KMS{KeyID: "arn:aws:kms:eu-west-3:111122223333:key/mrk-1", Timeout: time.Second})
	require.NoError(t, err)
	require.Equal(t, "eu-west-3", client.Options().Region, "the key's own")
}

// Doctor does not send anybody to look at the network for what is not set.
func TestTheDoctorNamesWhatAWSLacks(t *testing.T) {
	withoutAWS(t)
	nowhere := config.Default()
	nowhere.NATS.URL, nowhere.MongoDB.Timeout = "nats://127.0.0.1:1", 10*time.Millisecond
	nowhere.Mesh.URL = "http://127.0.0.1:1"
	nowhere.KMS = config.KMS{KeyID: "alias/test", Endpoint: "http://127.0.0.1:1", Timeout: 5 * time.Second}
	for region, want := range map[string][]string{"": {"no AWS Region", "kms.region"}, "eu-central-1": {"AWS_ACCESS_KEY_ID", "where the AWS SDK gets its credentials"}} {
		nowhere.KMS.Region = region
		for _, r := range doctor.Run(t.Context(), nowhere, doctor.Options{Timeout: patience}) {
			if r.Check == "kms" {
				require.Contains(t, r.Detail, want[0])
				require.Contains(t, r.Do, want[1])
				require.NotContains(t, r.Do, "network")
			}
		}
	}
}
