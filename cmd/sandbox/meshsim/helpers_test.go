package meshsim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/clocktest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
)

const (
	clientID     = "client"
	clientSecret = "client-secret"
)

// bench is a simulator behind a real listener, and a client of it.
type bench struct {
	*meshsim.Server
	t      *testing.T
	url    string
	clock  *clocktest.Clock
	client *http.Client
}

func newBench(t *testing.T, change ...func(*meshsim.Config)) *bench {
	t.Helper()
	c := clocktest.New(time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC))
	cfg := meshsim.Config{
		Seed: secret.New("seed"), ClientID: clientID, ClientSecret: secret.New(clientSecret), Clock: c.Now,
	}
	for _, f := range change {
		f(&cfg)
	}
	sim, err := meshsim.New(cfg)
	require.NoError(t, err)
	srv := httptest.NewServer(sim)
	t.Cleanup(func() {
		require.NoError(t, sim.Close())
		srv.Close()
	})
	return &bench{Server: sim, t: t, url: srv.URL, clock: c, client: srv.Client()}
}

// body is the JSON of a request.
type body map[string]any

// reply is what came back.
type reply struct {
	code   int
	header http.Header
	raw    []byte
	envelope
}

type envelope struct {
	Status    string
	Message   *string
	ErrorType *string
	Content   *struct {
		Status              string
		ErrorMessage        *string
		BrokerAccountTokens []struct {
			Account                            struct{ AccountID string }
			AccessToken, RefreshToken, TokenID *string
		}
		ExpiresInSeconds, RefreshTokenExpiresInSeconds *int32
		AccessToken, RefreshToken                      *string
		Account                                        *struct{ AccountID string }
	}
}

// refresh returns the refresh token in the answer, "" for none.
func (r reply) refresh() string {
	if len(r.Content.BrokerAccountTokens) == 0 || r.Content.BrokerAccountTokens[0].RefreshToken == nil {
		return ""
	}
	return *r.Content.BrokerAccountTokens[0].RefreshToken
}

// access returns the nth access token in the answer.
func (r reply) access(n int) secret.Text {
	return secret.New(*r.Content.BrokerAccountTokens[n].AccessToken)
}

func (b *bench) try(method, path string, in any) (reply, error) {
	b.t.Helper()
	data, err := json.Marshal(in)
	require.NoError(b.t, err)
	return b.send(b.t.Context(), method, path, data)
}

func (b *bench) send(ctx context.Context, method, path string, data []byte) (reply, error) {
	q, err := http.NewRequestWithContext(ctx, method, b.url+path, bytes.NewReader(data))
	require.NoError(b.t, err)
	q.Header.Set("X-Client-Id", clientID)
	q.Header.Set("X-Client-Secret", clientSecret)
	resp, err := b.client.Do(q)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	r := reply{code: resp.StatusCode, header: resp.Header, raw: raw}
	if err == nil {
		_ = json.Unmarshal(raw, &r.envelope) // some answers are not JSON
	}
	return r, err
}

func (b *bench) do(method, path string, in any) reply {
	b.t.Helper()
	r, err := b.try(method, path, in)
	require.NoError(b.t, err)
	return r
}

// renew refreshes a coinbase token, with further fields if given.
func (b *bench) renew(token string, more ...body) reply {
	b.t.Helper()
	return b.do(http.MethodPost, refreshPath, renewal(token, more...))
}

// lose refreshes and requires that no whole answer comes.
func (b *bench) lose(token string) {
	b.t.Helper()
	_, err := b.try(http.MethodPost, refreshPath, renewal(token))
	require.Error(b.t, err)
	b.settle()
}

// start sends a refresh that the test does not wait for. The client hangs up when
// hangUp is called; its error then comes through result.
func (b *bench) start(token string) (hangUp func(), result <-chan error) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	data := must(json.Marshal(renewal(token)))
	done := make(chan error, 1)
	go func() {
		_, err := b.send(ctx, http.MethodPost, refreshPath, data)
		done <- err
	}()
	b.t.Cleanup(cancel)
	return cancel, done
}

// settle waits until the ledger knows what became of every request.
func (b *bench) settle() {
	b.t.Helper()
	require.NoError(b.t, b.WaitIdle(b.t.Context()))
}

const (
	refreshPath = "/api/v1/token/refresh"
	accountPath = "/api/v1/account"
)

func renewal(token string, more ...body) body {
	q := body{"type": "coinbase", "refreshToken": token}
	for _, m := range more {
		for k, v := range m {
			q[k] = v
		}
	}
	return q
}

// connect connects one account, whose id is returned with its tokens.
func (b *bench) connect(i meshsim.Institution) (id, refresh string, access secret.Text) {
	b.t.Helper()
	c, err := b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Institution: &i})
	require.NoError(b.t, err)
	a := c.Accounts[0]
	return a.AccountID, a.RefreshToken.Reveal(), a.AccessToken
}

func (b *bench) script(id string, actions ...meshsim.Action) {
	b.t.Helper()
	require.NoError(b.t, b.Script(id, actions...))
}

func (b *bench) chain(id string) meshsim.Chain {
	b.t.Helper()
	c, ok := b.Ledger().Chain(id)
	require.True(b.t, ok)
	return c
}

func (b *bench) requireAccess(token secret.Text, why string) {
	b.t.Helper()
	for _, state := range []func(secret.Text) (bool, string){b.AccessTokenState, b.Ledger().AccessTokenState} {
		valid, got := state(token)
		require.Equal(b.t, why, got)
		require.Equal(b.t, why == "", valid)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(errors.Join(errors.New("test data"), err))
	}
	return v
}
