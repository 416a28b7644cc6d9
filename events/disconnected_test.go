package events_test

import (
	"fmt"
	"slices"
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
		{`{"userId":"user-1","everything":true}`, events.Disconnected{UserID: "user-1", Everything: true}},
		{`{"userId":"user-1","accountId":"a","everything":false}`, events.Disconnected{UserID: "user-1", AccountID: "a"}},
		{cloudEvent(t, events.IntegrationDisconnected, disconnectedBody, nil), events.Disconnected{UserID: "user-1", BrokerType: "coinbase", AccountID: "acc-1", DisconnectedAt: at}},
		{cloudEvent(t, "org.x.integration.disconnected", everythingBody, map[string]any{"brokertype": "an extension"}), events.Disconnected{UserID: "user-1", Everything: true, DisconnectedAt: envelope}},
		{cloudEvent64(t, events.IntegrationDisconnected, everythingBody), events.Disconnected{UserID: "user-1", Everything: true, DisconnectedAt: envelope}},
	} {
		d, err := events.DecodeDisconnected([]byte(c.body))
		require.NoError(t, err, c.body)
		require.Equal(t, c.want, d, c.body)
	}
}

// TestNothingWidensByMistake: a member that narrows may be misspelt, null or empty in
// any way, and the message is refused, never taken for one that covers more.
func TestNothingWidensByMistake(t *testing.T) {
	spellings := []string{
		"broker_type", "BrokerType", "brokertype", "BROKERTYPE", "broker-type", "broker", "type", "brokerTypes", "accountID", "account_id",
		"AccountId", "account", "accountIds", "Everything", "disconnected_at", "disconnectedat", "minTtlSeconds", "min_ttl_seconds", "sealto", "seal_to", "x", "",
	}
	values := []string{`"kraken"`, `null`, `""`, `5`, `{}`, `[]`, `true`}
	var bad []string
	for _, name := range spellings {
		for _, value := range values {
			bad = append(bad, fmt.Sprintf("%q:%s", name, value))
		}
	}
	for _, name := range []string{"brokerType", "accountId"} {
		for _, value := range values[1:] {
			bad = append(bad, fmt.Sprintf("%q:%s", name, value))
		}
	}
	disconnects := append(slices.Clone(bad), `"disconnectedAt":null`, `"disconnectedAt":""`, `"disconnectedAt":"0001-01-01T00:00:00Z"`, `"everything":null`, `"everything":"true"`, `"everything":1`)
	requests := append(slices.Clone(bad), `"everything":true`)
	refused := func(decoder, body string) {
		t.Helper()
		var invalid *events.InvalidError
		require.ErrorAs(t, decoders[decoder]([]byte(body)), &invalid, "%s %s", decoder, body)
	}
	for _, member := range disconnects {
		for _, beside := range []string{"", `,"everything":true`, `,"accountId":"a"`} {
			data := `{"userId":"u"` + beside + `,` + member + `}`
			refused("disconnected", data)
			refused("disconnected", cloudEvent(t, events.IntegrationDisconnected, data, map[string]any{"brokertype": "kraken"}))
			refused("disconnected", cloudEvent64(t, events.IntegrationDisconnected, data))
		}
	}
	for _, member := range requests {
		refused("token request", `{"userId":"u",`+member+`}`)
	}
	for _, body := range []string{`{"userId":"u"}`, `{"userId":"u","everything":false}`, `{"userId":"u","everything":true,"brokerType":"kraken"}`, `{"userId":"u","everything":true,"accountId":"a"}`, `null`} {
		refused("disconnected", body)
	}
	_, err := events.DecodeDisconnected([]byte(`{"userId":"u"}`))
	require.ErrorContains(t, err, `say "everything": true`)
}

func TestAddEverything(t *testing.T) {
	at := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	envelope := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for body, want := range map[string]events.Disconnected{
		`{"userId":"u"}`: {UserID: "u"},
		`{"userId":"u","brokerType":"","accountId":null,"disconnectedAt":"2031-05-06T07:08:09Z"}`: {UserID: "u", DisconnectedAt: at},
		cloudEvent(t, events.IntegrationDisconnected, `{"userId":"u"}`, nil):                      {UserID: "u", DisconnectedAt: envelope},
	} {
		said, err := events.AddEverything([]byte(body))
		require.NoError(t, err, body)
		want.Everything = true
		got, err := events.DecodeDisconnected(said)
		require.NoError(t, err, body)
		require.Equal(t, want, got, body)
	}
	for _, body := range []string{`{"userId":"u","brokerType":"kraken"}`, `{"userId":"u","broker_type":"kraken"}`, `{"userId":"u","accountId":5}`, `{"everything":true}`, `null`, `[]`, `{`} {
		_, err := events.AddEverything([]byte(body))
		require.Error(t, err, body)
	}
}

func TestRefreshDue(t *testing.T) {
	d, err := events.DecodeRefreshDue([]byte(refreshDueBody))
	require.NoError(t, err)
	require.Equal(t, events.RefreshDue{
		GrantID: "g1", BrokerType: "coinbase", Version: 3, DueAt: time.Date(2031, 5, 6, 7, 8, 9, 250e6, time.UTC),
	}, d)
}
