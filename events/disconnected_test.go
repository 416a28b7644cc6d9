package events_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

func TestDisconnected(t *testing.T) {
	at := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	envelope := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		body string
		want events.Disconnected
	}{
		{disconnectedBody, events.Disconnected{UserID: "user-1", BrokerType: "coinbase", AccountID: "acc-1", DisconnectedAt: at}},
		{`{"userId":"user-1"}`, events.Disconnected{UserID: "user-1"}},
		{`{"userId":"user-1","brokerType":null,"accountId":null,"disconnectedAt":null,"more":{}}`, events.Disconnected{UserID: "user-1"}},
		{cloudEvent(t, events.IntegrationDisconnected, disconnectedBody, nil), events.Disconnected{UserID: "user-1", BrokerType: "coinbase", AccountID: "acc-1", DisconnectedAt: at}},
		{cloudEvent(t, "org.x.integration.disconnected", `{"userId":"user-1"}`, nil), events.Disconnected{UserID: "user-1", DisconnectedAt: envelope}},
		{cloudEvent64(t, events.IntegrationDisconnected, `{"userId":"user-1"}`), events.Disconnected{UserID: "user-1", DisconnectedAt: envelope}},
	} {
		d, err := events.DecodeDisconnected([]byte(c.body))
		require.NoError(t, err, c.body)
		require.Equal(t, c.want, d, c.body)
	}
}

func TestRefreshDue(t *testing.T) {
	d, err := events.DecodeRefreshDue([]byte(refreshDueBody))
	require.NoError(t, err)
	require.Equal(t, events.RefreshDue{
		GrantID: "g1", BrokerType: "coinbase", Version: 3, DueAt: time.Date(2031, 5, 6, 7, 8, 9, 250e6, time.UTC),
	}, d)
}
