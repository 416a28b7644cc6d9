package events_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// binary has the headers that CloudEvents SDKs write in binary mode.
func binary(kind string, change map[string][]string) events.Headers {
	header := map[string][]string{
		"ce-specversion": {"1.0"}, "ce-id": {"ce-1"}, "ce-source": {"/backend"}, "ce-type": {kind}, "ce-time": {"2030-01-02T03:04:05Z"},
		"content-type": {"application/json"}, "ce-datacontenttype": {"application/json"}, "Nats-Msg-Id": {"x"},
	}
	for name, values := range change {
		header[name] = values
	}
	return events.HeadersOf(header)
}

func TestBinaryMode(t *testing.T) {
	const connected, disconnected = events.IntegrationConnected, events.IntegrationDisconnected
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		change  map[string][]string
		at      time.Time
		told    bool
		refused string
	}{
		"as the SDKs write it":    {at: at},
		"a prefixed type":         {change: map[string][]string{"ce-type": {"com.example." + connected}}, at: at},
		"other case":              {change: map[string][]string{"ce-time": nil, "Ce-Time": {"2030-01-02T03:04:05Z"}}, at: at},
		"percent-encoded":         {change: map[string][]string{"ce-time": {"2030-01-02T03%3A04%3a05Z"}, "ce-type": {"integration%2Econnected"}}, at: at},
		"a fraction and a zone":   {change: map[string][]string{"ce-time": {"2030-01-02T04:04:05.000+01:00"}}, at: at},
		"no time":                 {change: map[string][]string{"ce-time": nil}},
		"an empty time":           {change: map[string][]string{"ce-time": {""}}},
		"no type":                 {change: map[string][]string{"ce-type": nil}, at: at},
		"only a time":             {change: map[string][]string{"ce-type": nil, "ce-id": nil, "ce-source": nil, "ce-specversion": nil}, at: at},
		"the same time twice":     {change: map[string][]string{"ce-time": {"2030-01-02T03:04:05Z", "2030-01-02T03:04:05Z"}}, at: at},
		"no time at all":          {change: map[string][]string{"ce-time": {canary}}, told: true},
		"half a percent":          {change: map[string][]string{"ce-time": {"2030%-01"}}, told: true},
		"two times":               {change: map[string][]string{"ce-time": {"2030-01-02T03:04:05Z", "2031-01-02T03:04:05Z"}}, told: true},
		"a time of another epoch": {change: map[string][]string{"ce-time": {"1960-01-02T03:04:05Z"}}, told: true},
		"a foreign type":          {change: map[string][]string{"ce-type": {"com.example." + canary}}, refused: "ce-type"},
		"the other type":          {change: map[string][]string{"ce-type": {disconnected}}, refused: "ce-type"},
		"a foreign type too":      {change: map[string][]string{"Ce-Type": {canary}}, refused: "ce-type"},
		"another version":         {change: map[string][]string{"ce-specversion": {"0.3"}}, refused: "ce-specversion"},
	} {
		h := binary(connected, c.change)
		in, err := decodeConnected(h, []byte(delayedAuthForm))
		sealed, sealedErr := events.UnwrapConnected(h, []byte(sealedBody))
		require.Equal(t, err == nil, sealedErr == nil, name)
		if c.refused != "" {
			require.ErrorContains(t, err, c.refused, name)
			requireClean(t, err, name)
			continue
		}
		require.NoError(t, err, name)
		require.True(t, c.at.Equal(in.ConnectedAt), name)
		require.Equal(t, c.told, len(in.LeftOut) > 0, name)
		opened, err := sealed.DecodeOpened([]byte(delayedAuthForm))
		require.NoError(t, err, name)
		require.True(t, c.at.Equal(opened.ConnectedAt), name)
		require.Equal(t, c.told, len(opened.LeftOut) > 0, name)

		// What a body says itself goes before the headers.
		in, err = decodeConnected(h, []byte(accessTokenForm))
		require.NoError(t, err, name)
		require.Equal(t, 2031, in.ConnectedAt.Year(), name)
		in, err = decodeConnected(h, []byte(cloudEvent(t, connected, delayedAuthForm, map[string]any{"time": "2029-01-01T00:00:00Z"})))
		require.NoError(t, err, name)
		require.Equal(t, 2029, in.ConnectedAt.Year(), name)
	}
	require.Nil(t, events.HeadersOf(map[string][]string{"Nats-Msg-Id": {"x"}, "content-type": {"application/json"}}))
	require.Equal(t, "a b%", binary(connected, map[string][]string{"ce-id": {"a%20b%25"}}).ID())

	body := edited(t, disconnectedBody, map[string]any{"disconnectedAt": nil})
	d, err := events.DecodeDisconnectedMessage(binary(disconnected, nil), []byte(body))
	require.NoError(t, err)
	require.True(t, at.Equal(d.DisconnectedAt))
	for _, h := range []events.Headers{binary(connected, nil), binary(disconnected, map[string][]string{"ce-time": {canary}})} {
		_, err = events.DecodeDisconnectedMessage(h, []byte(body))
		require.Error(t, err)
		requireClean(t, err, body)
	}
}

func decodeConnected(h events.Headers, body []byte) (events.Connected, error) {
	m, err := events.UnwrapConnected(h, body)
	if err != nil {
		return events.Connected{}, err
	}
	return m.Decode()
}
