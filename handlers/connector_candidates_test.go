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
	"github.com/latchkey/latchkey/store"
)

func decoded(t *testing.T, payload string) []candidate {
	t.Helper()
	in, err := events.DecodeConnected([]byte(`{"userId":"u","payload":` + payload + `}`))
	require.NoError(t, err)
	return grantsOf(in, time.Unix(1e9, 0))
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

func TestAnAccountWithoutAnIDKeepsItsRefreshToken(t *testing.T) {
	got := decoded(t, `{"brokerType":"b","refreshTokenExpiresInSeconds":60,"accountTokens":[
		{"account":{"accountId":null},"accessToken":"x","refreshToken":"one"}, {"refreshToken":"two","tradeToken":"trade"},
		{"account":{"accountId":"a"},"accessToken":"y","refreshToken":"three"}, {"refreshToken":"three"}]}`)
	var refresh []string
	for _, c := range got {
		refresh = append(refresh, c.tokens.RefreshToken.Reveal())
		require.NotNil(t, c.grant.Refresh.ExpiresAt)
		require.Nil(t, c.grant.Account(""), "an account without an id")
	}
	require.Equal(t, []string{"one", "two", "three"}, refresh)
	require.Equal(t, store.DelayedGrantID("u", "b", "one"), got[0].grant.ID)
	require.Equal(t, "trade", got[1].tokens.TradeToken.Reveal())
}

// TestAConnectWithoutATokenIsDone: no dead letter, and no grant.
func TestAConnectWithoutATokenIsDone(t *testing.T) {
	f := newFixture(t)
	outcomes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "outcomes"}, []string{"outcome"})
	f.publish(`{"userId":"u","payload":{"accessToken":{"brokerType":"b","accountTokens":[{"account":{"accountId":"wallet"}}]}}}`)
	f.run(1, Connected(&Connector{Outcomes: outcomes, Log: f.log}, nil, config.Default().Connect))
	f.eventually(func() bool { return f.left(f.subjects.IntegrationStream()) == 0 }, "not acknowledged")
	require.Zero(t, f.left(f.subjects.DeadLetterStream()))
	require.EqualValues(t, 1, testutil.ToFloat64(outcomes.WithLabelValues("nothing_to_keep")))
}
