package events_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// requireNoEcho checks that a refusal is of the one kind and repeats nothing
// of a body in which the fuzzer was to keep the canary.
func requireNoEcho(t *testing.T, err error) {
	t.Helper()
	requireClean(t, err, "fuzzed body")
	require.Less(t, len(err.Error()), 400, "the error grows with the body")
}

func FuzzDecodeConnected(f *testing.F) {
	for _, body := range validBodies(f)["connected"] {
		f.Add([]byte(body))
		f.Add([]byte(withCanaries(body)))
	}
	f.Add([]byte(`{"specversion":"1.0","data_base64":5}`))
	f.Add([]byte(`{"` + canary + `":1,"` + canary + `":2}`))
	f.Add([]byte(`{"userId":"` + canary))
	f.Add([]byte(`{"userId":"u","payload":{"accessToken":{"brokerType":"b","accountTokens":[{"refreshToken":"r"},{"account":{"accountId":"a"},"tokenId":7}]}}}`))
	f.Add([]byte(`{"userId":"u","payload":{"brokerType":"b","refreshToken":"r","refreshToken":"` + canary + `"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := events.DecodeConnected(body)
		if err != nil {
			requireNoEcho(t, err)
			return
		}
		require.NoError(t, events.CheckUserID(c.UserID))
		for _, told := range c.LeftOut {
			require.NotContains(t, told, canary)
			require.Less(t, len(told), 200, "what is told grows with the body")
		}
		require.LessOrEqual(t, len(c.LeftOut), 11)
		require.Equal(t, []string{c.UserID}, events.FindUsers(body), "an erasure would not find it")
		if c.Empty() {
			return
		}
		again, err := events.DecodeConnected(encodeConnected(t, c))
		require.NoError(t, err, "an accepted message is refused when sent again")
		c.LeftOut, again.LeftOut = nil, nil
		require.Equal(t, c, again)
	})
}

// encodeConnected writes a message with its tokens in the clear, as a backend does.
func encodeConnected(t *testing.T, c events.Connected) []byte {
	type object = map[string]any
	payload := object{}
	if a := c.Payload.AccessToken; a != nil {
		tokens := []any{}
		for _, token := range a.AccountTokens {
			tokens = append(tokens, object{
				"account":     object{"accountId": token.Account.AccountID, "accountName": token.Account.AccountName},
				"accessToken": token.AccessToken.Reveal(), "refreshToken": token.RefreshToken.Reveal(),
				"tradeToken": token.TradeToken.Reveal(), "tokenId": token.TokenID.Reveal(),
			})
		}
		payload["accessToken"] = object{
			"accountTokens": tokens, "brokerType": a.BrokerType, "brokerName": a.BrokerName,
			"expiresInSeconds": a.ExpiresInSeconds, "refreshTokenExpiresInSeconds": a.RefreshTokenExpiresInSeconds,
		}
	}
	if d := c.Payload.DelayedAuth; d != nil {
		payload["delayedAuth"] = object{
			"refreshToken": d.RefreshToken.Reveal(), "refreshTokenExpiresInSeconds": d.RefreshTokenExpiresInSeconds,
			"brokerType": d.BrokerType, "brokerName": d.BrokerName,
		}
	}
	message := object{"userId": c.UserID, "payload": payload}
	if !c.ConnectedAt.IsZero() {
		message["connectedAt"] = c.ConnectedAt
	}
	b, err := json.Marshal(message)
	require.NoError(t, err)
	return b
}

func FuzzDecodeUserID(f *testing.F) {
	for _, token := range []string{"user-1", "a%2Eb", "%", "%4", "%41", "%2e", "", "%E2%80%AE", "a.b", "%FF", strings.Repeat("%2E", 300)} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		id, err := events.DecodeUserID(token)
		if err != nil {
			require.ErrorIs(t, err, events.ErrUserID)
			return
		}
		require.NoError(t, events.CheckUserID(id))
		require.Equal(t, token, events.EncodeUserID(id))
		requireOneToken(t, token)
	})
}

func FuzzDecodeTokenRequest(f *testing.F) {
	f.Add([]byte(tokenRequestBody))
	f.Add([]byte(withCanaries(tokenRequestBody)))
	f.Add([]byte(`{"userId":"u","minTTLSeconds":9223372036854775807}`))
	f.Add([]byte(`{"userId":"u","minTTLSeconds":{"` + canary + `":1}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := events.DecodeTokenRequest(body)
		if err != nil {
			requireNoEcho(t, err)
			return
		}
		b, err := json.Marshal(r)
		require.NoError(t, err)
		again, err := events.DecodeTokenRequest(b)
		require.NoError(t, err, "an accepted request is refused when sent again: %s", bytes.ToValidUTF8(b, nil))
		require.Equal(t, r, again)
	})
}
