package handlers

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

func decoded(t *testing.T, payload string) []candidate {
	t.Helper()
	in, err := events.DecodeConnected([]byte(`{"userId":"u","payload":` + payload + `}`))
	require.NoError(t, err)
	return candidatesOf(in, time.Unix(1e9, 0), store.FingerprintKey{})
}

// TestAManagedTokenHasNoEnd: nothing refreshes it, and the token id is what is
// handed out.
func TestAManagedTokenHasNoEnd(t *testing.T) {
	const form = `{"brokerType":"b","expiresInSeconds":60,"accountTokens":[{"account":{"accountId":"a"},"accessToken":"access","tokenId":"id"REFRESH}]}`
	managed := decoded(t, strings.ReplaceAll(form, "REFRESH", ""))[0]
	require.Nil(t, managed.grant.Refresh)
	require.NotNil(t, managed.grant.Access)
	require.Nil(t, managed.grant.Access.ExpiresAt)
	require.Nil(t, managed.grant.Accounts[0].ExpiresAt)
	require.Equal(t, "id", managed.tokens.Accounts[0].AccessToken.Reveal())
	require.Equal(t, "id", managed.tokens.Accounts[0].TokenID.Reveal())

	refreshed := decoded(t, strings.ReplaceAll(form, "REFRESH", `,"refreshToken":"refresh"`))[0]
	require.Equal(t, managed.grant.ID, refreshed.grant.ID, "a move from one model to the other keeps the grant")
	require.NotNil(t, refreshed.grant.Access.ExpiresAt)
	require.Equal(t, "access", refreshed.tokens.Accounts[0].AccessToken.Reveal())
	require.Equal(t, "id", refreshed.tokens.Accounts[0].TokenID.Reveal())
}

// TestAnAccountWithoutAnIDKeepsItsTokens, in a grant whose accounts are not known. What
// has no refresh token is a grant of its own, the same for the same token.
func TestAnAccountWithoutAnIDKeepsItsTokens(t *testing.T) {
	got := decoded(t, `{"brokerType":"b","expiresInSeconds":30,"refreshTokenExpiresInSeconds":60,"accountTokens":[
		{"account":{"accountId":null},"accessToken":"x","refreshToken":"one","tokenId":"id"}, {"refreshToken":"two","tradeToken":"trade"},
		{"account":{"accountId":"a"},"accessToken":"y","refreshToken":"three"}, {"refreshToken":"three"}]}`)
	var refresh []string
	for _, c := range got {
		refresh = append(refresh, c.tokens.RefreshToken.Reveal())
		require.NotNil(t, c.grant.Refresh.ExpiresAt)
		require.Nil(t, c.grant.Account(""), "an account without an id")
	}
	require.Equal(t, []string{"one", "two", "three"}, refresh)
	require.Equal(t, store.DelayedGrantID("u", "b", store.FingerprintKey{}.Of(secret.New("one"))), got[0].grant.ID)
	require.Equal(t, "x", got[0].tokens.Access("").Reveal())
	require.Equal(t, "id", got[0].tokens.Account("").TokenID.Reveal())
	require.NotNil(t, got[0].grant.Access.ExpiresAt)
	require.Nil(t, got[1].grant.Access)
	require.Equal(t, "trade", got[1].tokens.TradeToken.Reveal())

	const unnamed = `{"brokerType":"b","expiresInSeconds":30,"accountTokens":[{"accessToken":"x"},{"accessToken":"y"},{"accessToken":"z","tokenId":"id"}]}`
	got = decoded(t, unnamed)
	require.Len(t, got, 3)
	for i, c := range got {
		require.Nil(t, c.grant.Refresh)
		require.Empty(t, c.grant.Accounts)
		require.Equal(t, []string{"x", "y", "id"}[i], c.tokens.Access("").Reveal())
		require.Equal(t, i == 2, c.grant.Access.ExpiresAt == nil, "a managed token has no end")
		require.Equal(t, decoded(t, unnamed)[i].grant.ID, c.grant.ID)
		require.NotEqual(t, got[(i+1)%3].grant.ID, c.grant.ID)
	}
}

// TestATokenIDWithoutAnAccessTokenIsKept beside a refresh token.
func TestATokenIDWithoutAnAccessTokenIsKept(t *testing.T) {
	got := decoded(t, `{"brokerType":"b","accountTokens":[{"account":{"accountId":"a"},"refreshToken":"r","tokenId":"id"}]}`)[0]
	require.Equal(t, "id", got.tokens.Account("a").TokenID.Reveal())
	require.Nil(t, got.grant.Access)
}

// TestAConnectWithoutATokenIsDone: no dead letter, and no grant.
func TestAConnectWithoutATokenIsDone(t *testing.T) {
	f := newFixture(t)
	outcomes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "outcomes"}, []string{"outcome"})
	f.publish(`{"userId":"u","payload":{"accessToken":{"brokerType":"b","accountTokens":[{"account":{"accountId":"wallet"}}]}}}`)
	f.run(1, Connected(&Connector{ConnectorOptions{Outcomes: outcomes, Log: f.log}}, nil, config.Default().Connect))
	f.eventually(func() bool { return f.left(f.subjects.IntegrationStream()) == 0 }, "not acknowledged")
	require.Zero(t, f.left(f.subjects.DeadLetterStream()))
	require.EqualValues(t, 1, testutil.ToFloat64(outcomes.WithLabelValues("nothing_to_keep")))
}
