package stack

import (
	"context"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
)

// A worker finds everything by its configuration, and a stack on the same folder has the
// grants and keys of the one before it.
func TestAStackKeepsItsData(t *testing.T) {
	dir := t.TempDir()
	s, err := Start(Options{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	cfg, err := s.Config("LATCHKEY_NATS_PREFIX=other")
	require.NoError(t, err)
	assert.Equal(t, s.MeshURL, cfg.Mesh.URL)
	assert.Equal(t, s.MongoDB.URI(), cfg.MongoDB.URI.Reveal())
	assert.Equal(t, "other", cfg.NATS.Prefix)
	nc, err := nats.Connect(cfg.NATS.URL)
	require.NoError(t, err)
	nc.Close()
	key, err := s.KMS.CreateKey(KeyAlias)
	require.NoError(t, err)
	c, err := s.Mesh.Connect(meshsim.ConnectSpec{BrokerType: "coinbase"})
	require.NoError(t, err)
	identity, err := s.WebIdentity(dir)
	require.NoError(t, err)
	assert.Contains(t, identity, "AWS_WEB_IDENTITY_TOKEN_FILE="+filepath.Join(dir, "identity-token"))
	s.Stop()

	again, err := Start(Options{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(again.Stop)
	same, err := again.KMS.CreateKey(KeyAlias)
	require.NoError(t, err)
	assert.Equal(t, key, same)
	valid, why := again.Mesh.AccessTokenState(c.Accounts[0].AccessToken)
	assert.True(t, valid, why)
}

// A fault leaves a request without an answer, though it was carried out.
func TestAFaultKeepsTheAnswerOfARequest(t *testing.T) {
	s, err := Start(Options{Dir: t.TempDir(), MeshFault: func(r *http.Request) bool { return r.URL.Path == "/sim/faults" && r.Method == http.MethodDelete }})
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	_, err = s.Mesh.Inject(meshsim.Fault{Action: meshsim.Reset()})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodDelete, s.MeshURL+"/sim/faults", nil)
	require.NoError(t, err)
	q.Header.Set("X-Client-Id", ClientID)
	q.Header.Set("X-Client-Secret", ClientSecret)
	ended := make(chan error, 1)
	go func() {
		answer, err := http.DefaultClient.Do(q)
		if err == nil {
			answer.Body.Close()
		}
		ended <- err
	}()
	require.Eventually(t, func() bool { return len(s.Mesh.Faults()) == 0 }, time.Minute, 10*time.Millisecond)
	assert.Empty(t, ended, "no answer")
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}
