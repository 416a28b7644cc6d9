package worker_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/secret"
)

// A request for credentials that is never answered costs the calls that wait for
// it, and no others: wherever the credentials come from, and however much of the
// answer came.
func TestRequestsForCredentialsEnd(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(token, []byte("identity"), 0o600))
	k, err := kmssim.Open(kmssim.Options{Dir: filepath.Join(dir, "keys"), AccessKeyID: "AKIA", SecretAccessKey: secret.New("secret")})
	require.NoError(t, err)
	_, err = k.CreateKey("alias/test")
	require.NoError(t, err)
	kmsServer := httptest.NewServer(k)
	defer kmsServer.Close()
	// As the endpoint of a container does.
	container := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"AccessKeyId": "AKIA", "SecretAccessKey": "secret", "Token": "", "Expiration": time.Now().Add(time.Hour),
		})
	})
	for source, c := range map[string]struct {
		service http.Handler
		environ func(url string) map[string]string
	}{
		"STS": {kmssim.NewSTS(k, kmssim.STSOptions{Token: secret.New("identity")}), func(url string) map[string]string {
			return map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/worker", "AWS_ENDPOINT_URL_STS": url}
		}},
		"container": {container, func(url string) map[string]string {
			return map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": url + "/credentials"}
		}},
	} {
		for comes, begin := range map[string]func(http.ResponseWriter){
			"nothing": func(http.ResponseWriter) {},
			"a part": func(w http.ResponseWriter) {
				_, _ = w.Write([]byte("{"))
				w.(http.Flusher).Flush()
			},
		} {
			t.Run(source+", "+comes, func(t *testing.T) {
				var silent atomic.Bool
				silent.Store(true)
				over := make(chan struct{})
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
					if silent.Load() {
						begin(w)
						<-over
						return
					}
					c.service.ServeHTTP(w, q)
				}))
				defer server.Close()
				defer close(over)
				for _, name := range []string{
					"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
					"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
				} {
					t.Setenv(name, "")
				}
				t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "none"))
				t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "none"))
				for name, value := range c.environ(server.URL) {
					t.Setenv(name, value)
				}
				client, err := worker.KMS(t.Context(), config.KMS{Region: "us-east-1", Endpoint: kmsServer.URL, Timeout: time.Second})
				require.NoError(t, err)
				ask := func(within time.Duration) error {
					ctx, cancel := context.WithTimeout(t.Context(), within)
					defer cancel()
					_, err := client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String("alias/test")})
					return err
				}
				require.Error(t, ask(100*time.Millisecond))
				silent.Store(false)
				require.Eventually(t, func() bool { return ask(10*time.Second) == nil }, 2*time.Minute, 100*time.Millisecond)
			})
		}
	}
}
