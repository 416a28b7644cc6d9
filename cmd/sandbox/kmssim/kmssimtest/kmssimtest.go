// Package kmssimtest gives tests a simulated KMS behind a real server.
package kmssimtest

import (
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/events/secret"
)

// Server is a simulated KMS and its address, for one test.
type Server struct {
	*kmssim.KMS
	URL string
}

// Start starts a KMS with one key, which has an alias. It ends with the test.
func Start(t testing.TB, alias string) Server {
	t.Helper()
	sim, err := kmssim.Open(kmssim.Options{Dir: t.TempDir(), AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: secret.New("example")})
	require.NoError(t, err)
	_, err = sim.CreateKey(alias)
	require.NoError(t, err)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	return Server{sim, server.URL}
}

// Client returns the SDK's own client of the KMS.
func (s Server) Client(options ...func(*kms.Options)) *kms.Client {
	return kms.NewFromConfig(s.Config(s.URL), options...)
}

// Once has a client try only once. The SDK's waits would only cost a test time.
func Once(o *kms.Options) { o.RetryMaxAttempts = 1 }
