package events_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

func TestConnectedAccessTokenForm(t *testing.T) {
	c, err := events.DecodeConnected([]byte(accessTokenForm))
	require.NoError(t, err)
	require.Equal(t, events.Connected{
		UserID:      "user-1",
		ConnectedAt: time.Date(2031, 5, 6, 7, 8, 9, 250e6, time.UTC),
		Payload: &events.LinkPayload{AccessToken: &events.AccessTokenPayload{
			AccountTokens: []events.AccountToken{
				{
					Account:     events.PayloadAccount{AccountID: "acc-1", AccountName: "Main"},
					AccessToken: secret.New("at-1"), RefreshToken: secret.New("rt-1"),
					TradeToken: secret.New("tt-1"), TokenID: secret.New("id-1"),
				},
				{Account: events.PayloadAccount{AccountID: "acc-2"}, AccessToken: secret.New("at-2")},
			},
			BrokerType: "coinbase", BrokerName: "Coinbase",
			ExpiresInSeconds: 3600, RefreshTokenExpiresInSeconds: 7776000,
		}},
	}, c)
}

func TestConnectedDelayedAuthForm(t *testing.T) {
	c, err := events.DecodeConnected([]byte(delayedAuthForm))
	require.NoError(t, err)
	require.Nil(t, c.Payload.AccessToken)
	require.Equal(t, &events.DelayedAuthPayload{
		RefreshToken: secret.New("rt-1"), RefreshTokenExpiresInSeconds: 86400, BrokerType: "robinhood", BrokerName: "Robinhood",
	}, c.Payload.DelayedAuth)
	require.Zero(t, c.ConnectedAt)
}

func TestConnectedAsCloudEvent(t *testing.T) {
	plain, err := events.DecodeConnected([]byte(accessTokenForm))
	require.NoError(t, err)
	// Five question marks give base64 with a slash, which some encoders escape.
	withSlash := cloudEvent64(t, events.IntegrationConnected, edited(t, accessTokenForm, map[string]any{"more": "?????"}))
	escapedBase64 := strings.ReplaceAll(withSlash, "/", `\/`)
	require.Greater(t, strings.Count(escapedBase64, `\/`), 1)
	for name, body := range map[string]string{
		"data":           cloudEvent(t, events.IntegrationConnected, accessTokenForm, nil),
		"data_base64":    cloudEvent64(t, events.IntegrationConnected, accessTokenForm),
		"prefixed type":  cloudEvent(t, "com.example.integration.connected", accessTokenForm, nil),
		"extensions":     cloudEvent(t, events.IntegrationConnected, accessTokenForm, map[string]any{"traceparent": "00-1", "with_object": map[string]any{}}),
		"no time":        cloudEvent(t, events.IntegrationConnected, accessTokenForm, map[string]any{"time": nil}),
		"escaped base64": escapedBase64,
	} {
		c, err := events.DecodeConnected([]byte(body))
		require.NoError(t, err, name)
		require.Equal(t, plain, c, name)
	}
}

func TestConnectedAtOfTheBodyGoesBeforeTheEnvelope(t *testing.T) {
	c, err := events.DecodeConnected([]byte(cloudEvent(t, events.IntegrationConnected, delayedAuthForm, nil)))
	require.NoError(t, err)
	require.Equal(t, time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), c.ConnectedAt)

	c, err = events.DecodeConnected([]byte(cloudEvent(t, events.IntegrationConnected, accessTokenForm, nil)))
	require.NoError(t, err)
	require.Equal(t, time.Date(2031, 5, 6, 7, 8, 9, 250e6, time.UTC), c.ConnectedAt)
}

func TestUnknownFieldsAndBrokersAreAccepted(t *testing.T) {
	body := edited(t, accessTokenForm, map[string]any{"brokerType": "brokerOfTomorrow", "newField": map[string]any{"a": []any{1, nil}}}, "payload", "accessToken")
	body = edited(t, body, map[string]any{"futureForm": map[string]any{"x": 1}}, "payload")
	body = edited(t, body, map[string]any{"tenant": "t"})
	c, err := events.DecodeConnected([]byte(body))
	require.NoError(t, err)
	require.Equal(t, "brokerOfTomorrow", c.Payload.AccessToken.BrokerType)
}

func TestNullZeroAndAbsentLifetimesAreTheSame(t *testing.T) {
	for _, form := range []struct{ body, name string }{{accessTokenForm, "accessToken"}, {delayedAuthForm, "delayedAuth"}} {
		for _, value := range []string{`null`, `0`, `0.0`, `-0`, ``} {
			body := edited(t, form.body, map[string]any{"expiresInSeconds": nil, "refreshTokenExpiresInSeconds": nil}, "payload", form.name)
			if value != "" {
				body = strings.Replace(body, `"brokerName"`, `"expiresInSeconds":`+value+`,"refreshTokenExpiresInSeconds":`+value+`,"brokerName"`, 1)
			}
			c, err := events.DecodeConnected([]byte(body))
			require.NoError(t, err, body)
			if a := c.Payload.AccessToken; a != nil {
				require.Zero(t, a.ExpiresInSeconds.Duration())
				require.Zero(t, a.RefreshTokenExpiresInSeconds.Duration())
			} else {
				require.Zero(t, c.Payload.DelayedAuth.RefreshTokenExpiresInSeconds.Duration())
			}
		}
	}
}

func TestSecondsDuration(t *testing.T) {
	const century = 100 * 365 * 24 * time.Hour
	for seconds, want := range map[events.Seconds]time.Duration{
		0: 0, -1: 0, 1: time.Second, 59.9: 59 * time.Second, 3600: time.Hour,
		1e-9:       time.Second, // not 0, which would mean that it never ends
		0.5:        time.Second,
		3153600000: century, 3153600001: century, 1e300: century,
	} {
		require.Equal(t, want, seconds.Duration(), "%v", seconds)
	}
}

func TestEndsOfAnAcceptedConnectCanBeWritten(t *testing.T) {
	body := edited(t, accessTokenForm, map[string]any{"connectedAt": "9899-12-31T23:59:59Z"})
	body = edited(t, body, map[string]any{"expiresInSeconds": 1e300}, "payload", "accessToken")
	c, err := events.DecodeConnected([]byte(body))
	require.NoError(t, err)
	end := c.ConnectedAt.Add(c.Payload.AccessToken.ExpiresInSeconds.Duration())
	_, err = end.MarshalJSON()
	require.NoError(t, err)
}

func TestLongDisplayNamesAreCut(t *testing.T) {
	long := "x" + strings.Repeat("é", 1000)
	body := edited(t, accessTokenForm, map[string]any{"brokerName": long}, "payload", "accessToken")
	body = edited(t, body, map[string]any{"accountName": long}, "payload", "accessToken", "accountTokens", 0, "account")
	c, err := events.DecodeConnected([]byte(body))
	require.NoError(t, err)
	d, err := events.DecodeConnected([]byte(edited(t, delayedAuthForm, map[string]any{"brokerName": long}, "payload", "delayedAuth")))
	require.NoError(t, err)
	for _, name := range []string{c.Payload.AccessToken.BrokerName, c.Payload.AccessToken.AccountTokens[0].Account.AccountName, d.Payload.DelayedAuth.BrokerName} {
		require.Len(t, name, 511)
		require.True(t, utf8.ValidString(name))
		require.True(t, strings.HasPrefix(long, name))
	}
}

func TestDecodedTokensDoNotPrint(t *testing.T) {
	c, err := events.DecodeConnected([]byte(withCanaries(edited(t, accessTokenForm, map[string]any{"connectedAt": nil}))))
	require.NoError(t, err)
	require.Equal(t, canary, c.Payload.AccessToken.AccountTokens[0].AccessToken.Reveal())
	tokens := c.Payload.AccessToken.AccountTokens[0]
	tokens.Account = events.PayloadAccount{}
	require.NotContains(t, fmt.Sprintf("%v %+v %#v %s", tokens, tokens, tokens, tokens), canary)
}
