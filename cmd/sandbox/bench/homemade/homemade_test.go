package homemade_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/bench/homemade"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
)

// Two services on one database store, answer and renew tokens, each refresh token once.
func TestTokensAreStoredReadAndRenewedOnce(t *testing.T) {
	database, broker := enginestest.Postgres(t), enginestest.NATS(t)
	mesh, err := meshsim.New(meshsim.Config{Seed: secret.New("seed"), ClientID: "id", ClientSecret: secret.New("secret")})
	require.NoError(t, err)
	server := httptest.NewServer(mesh)
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	var services []*homemade.Service
	for range 2 {
		s, err := homemade.Open(ctx, homemade.Options{
			PostgresURL: database.URL(), NATSURL: broker.URL(), Prefix: "homemade", Key: [32]byte{1}, MeshURL: server.URL, ClientID: "id", ClientSecret: secret.New("secret"),
			Every: 10 * time.Millisecond, Calls: 4, Failed: func(err error) { t.Error(err) },
		})
		require.NoError(t, err)
		t.Cleanup(s.Close)
		services = append(services, s)
	}

	const users = 40
	tokens := make([]homemade.Token, users)
	for i := range tokens {
		c, err := mesh.Connect(meshsim.ConnectSpec{BrokerType: "bank"})
		require.NoError(t, err)
		tokens[i] = homemade.Token{
			User: fmt.Sprint("user-", i), Broker: "bank", Account: c.Accounts[0].AccountID, Access: c.Accounts[0].AccessToken, Refresh: c.Accounts[0].RefreshToken,
			ExpiresAt: time.Now().Add(time.Hour), DueAt: time.Now().Add(time.Hour),
		}
	}
	for i := range tokens[1:] {
		tokens[1+i].DueAt = time.Now()
	}
	require.NoError(t, services[0].Add(ctx, tokens))
	requireSealed(t, database.URL(), tokens)
	for _, s := range services {
		go func() { ended <- s.Run(ctx) }()
	}
	nc, err := nats.Connect(broker.URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	require.Eventually(t, func() bool {
		echo, err := nc.Request("homemade.echo", []byte("sent"), time.Minute)
		return err == nil && string(echo.Data) == "sent"
	}, time.Minute, 5*time.Millisecond)
	require.Equal(t, tokens[0].Access.Reveal(), get(t, nc, "user-0"))
	for i := range users - 1 {
		require.Eventually(t, func() bool {
			now := get(t, nc, tokens[1+i].User)
			valid, _ := mesh.AccessTokenState(secret.New(now))
			return valid && now != tokens[1+i].Access.Reveal()
		}, time.Minute, 5*time.Millisecond)
	}
	cancel()
	require.NoError(t, <-ended)
	require.NoError(t, <-ended)
	require.Empty(t, mesh.Ledger().ReplacedPresented())
	require.Len(t, mesh.Ledger().Requests, users-1)
}

func get(t *testing.T, nc *nats.Conn, user string) string {
	t.Helper()
	body, err := json.Marshal(homemade.Request{UserID: user})
	require.NoError(t, err)
	msg, err := nc.Request("homemade.get", body, time.Minute)
	require.NoError(t, err)
	var reply homemade.Reply
	require.NoError(t, json.Unmarshal(msg.Data, &reply), "%v", msg.Header)
	require.Len(t, reply.AccessTokens, 1)
	return reply.AccessTokens[0].AccessToken
}

// requireSealed looks for tokens in the clear.
func requireSealed(t *testing.T, url string, tokens []homemade.Token) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	defer pool.Close()
	rows, err := pool.Query(t.Context(), `SELECT tokens::text FROM tokens`)
	require.NoError(t, err)
	stored, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Len(t, stored, len(tokens))
	for _, row := range stored {
		for _, token := range tokens {
			for _, text := range []secret.Text{token.Access, token.Refresh} {
				require.NotContains(t, row, text.Reveal())
				require.NotContains(t, row, fmt.Sprintf("%x", text.Reveal()))
			}
		}
	}
}
