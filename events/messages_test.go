package events_test

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// decoders are all that read what others send, by message.
var decoders = map[string]func([]byte) error{
	"connected":     func(b []byte) error { _, err := events.DecodeConnected(b); return err },
	"mfa request":   func(b []byte) error { _, err := events.DecodeMFARequest(b); return err },
	"disconnected":  func(b []byte) error { _, err := events.DecodeDisconnected(b); return err },
	"refresh due":   func(b []byte) error { _, err := events.DecodeRefreshDue(b); return err },
	"token request": func(b []byte) error { _, err := events.DecodeTokenRequest(b); return err },
	"token reply":   func(b []byte) error { _, err := events.DecodeTokenReply(b); return err },
	"token keys":    func(b []byte) error { _, err := events.DecodeTokenKeys(b); return err },
	"sealed": func(b []byte) error {
		m, err := events.UnwrapConnected(nil, b)
		if err == nil && m.JWE == "" {
			return &events.InvalidError{Message: events.IntegrationConnected, Problem: "not sealed"}
		}
		return err
	},
	"lifecycle": func(b []byte) error { _, err := events.DecodeLifecycle(b); return err },
}

// The key of RFC 7517, A.1, and its thumbprint.
const (
	keyX  = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"
	keyY  = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
	keyID = "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"
)

const (
	accessTokenForm = `{
		"userId": "user-1",
		"connectedAt": "2031-05-06T07:08:09.25Z",
		"payload": {"accessToken": {
			"accountTokens": [
				{"account": {"accountId": "acc-1", "accountName": "Main", "fund": 0, "cash": 12.5, "isReconnected": false},
				 "accessToken": "at-1", "refreshToken": "rt-1", "tokenId": "id-1", "tradeToken": "tt-1"},
				{"account": {"accountId": "acc-2", "accountName": null}, "accessToken": "at-2", "refreshToken": null}
			],
			"brokerBrandInfo": {"brokerLogo": "iVBORw0KGgo="},
			"expiresInSeconds": 3600,
			"refreshTokenExpiresInSeconds": 7776000,
			"brokerType": "coinbase",
			"brokerName": "Coinbase"
		}}
	}`
	delayedAuthForm = `{
		"userId": "user-1",
		"payload": {"delayedAuth": {
			"refreshToken": "rt-1",
			"refreshTokenExpiresInSeconds": 86400,
			"brokerType": "robinhood",
			"brokerName": "Robinhood",
			"brokerBrandInfo": {}
		}}
	}`
	disconnectedBody = `{"userId": "user-1", "brokerType": "coinbase", "accountId": "acc-1", "disconnectedAt": "2031-05-06T07:08:09Z"}`
	everythingBody   = `{"userId": "user-1", "everything": true}`
	refreshDueBody   = `{"grantId": "g1", "brokerType": "coinbase", "version": 3, "dueAt": "2031-05-06T07:08:09.25Z"}`
	tokenRequestBody = `{"userId": "user-1", "brokerType": "coinbase", "accountId": "acc-1", "minTTLSeconds": 60}`
	mfaRequestBody   = `{"userId": "user-1", "grantId": "g1", "code": "246810", "version": 3}`
	refusedBody      = `{"userId": "user-1", "refused": [{"grantId": "g1", "version": 3}]}`
	sealToBody       = `{"userId": "user-1", "sealTo": {"kty": "EC", "crv": "P-256", "x": "` + keyX + `", "y": "` + keyY + `", "kid": "k", "use": "enc", "alg": "ECDH-ES+A256KW"}}`
	tokenKeysBody    = `{"keys": [{"kty": "EC", "crv": "P-256", "x": "` + keyX + `", "y": "` + keyY + `", "kid": "` + keyID + `", "use": "enc", "alg": "ECDH-ES+A256KW"}]}`
	sealedBody       = `{"sealed": "rt-1"}`
	tokenReplyBody   = `{
		"accessTokens": [{"accountId": "acc-1", "accountName": "Main", "accessToken": "at-1", "brokerType": "coinbase", "brokerName": "Coinbase"}],
		"expiries": [{"accountId": "acc-1", "grantId": "g1", "version": 3, "obtainedAt": "2031-05-06T06:08:09Z", "expiresAt": "2031-05-06T07:08:09Z",
			"refreshFailing": {"since": "2031-05-06T07:00:09Z", "reason": "transient"}}],
		"refused": [{"grantId": "g1", "version": 2, "outcome": "replaced"}],
		"unavailable": [{"accountId": "acc-2", "brokerType": "coinbase", "grantId": "g2", "code": "must_act", "reason": "mfa_required"}]
	}`
	lifecycleBody = `{
		"specversion": "1.0", "id": "e1", "source": "latchkey", "type": "token.expired", "subject": "g1",
		"time": "2031-05-06T07:08:09Z", "datacontenttype": "application/json",
		"data": {"userId": "user-1", "grantId": "g1", "brokerType": "coinbase", "accounts": [{"accountId": "acc-1"}], "version": 2, "reason": "rejected"}
	}`
)

// validBodies has, for each decoder, bodies that it accepts.
func validBodies(t testing.TB) map[string][]string {
	return map[string][]string{
		"connected": {
			accessTokenForm, delayedAuthForm, bare(t, accessTokenForm), bare(t, delayedAuthForm),
			cloudEvent(t, events.IntegrationConnected, accessTokenForm, nil),
			cloudEvent64(t, events.IntegrationConnected, delayedAuthForm),
		},
		"disconnected": {
			disconnectedBody, everythingBody,
			cloudEvent(t, events.IntegrationDisconnected, disconnectedBody, nil),
			cloudEvent64(t, events.IntegrationDisconnected, disconnectedBody),
		},
		"mfa request":   {mfaRequestBody},
		"refresh due":   {refreshDueBody},
		"token request": {tokenRequestBody, refusedBody, sealToBody},
		"token keys":    {tokenKeysBody},
		"sealed":        {sealedBody, cloudEvent(t, events.IntegrationConnected, sealedBody, nil), cloudEvent64(t, events.IntegrationConnected, sealedBody)},
		"token reply":   {tokenReplyBody},
		"lifecycle":     {lifecycleBody},
	}
}

// cloudEvent wraps data in a structured message. In change, nil removes an
// attribute.
func cloudEvent(t testing.TB, kind, data string, change map[string]any) string {
	t.Helper()
	return structured(t, map[string]any{
		"specversion": "1.0", "id": "ce-1", "source": "/backend", "type": kind, "time": "2030-01-02T03:04:05Z",
		"datacontenttype": "application/json", "data": json.RawMessage(data),
	}, change)
}

func cloudEvent64(t testing.TB, kind, data string) string {
	t.Helper()
	return cloudEvent(t, kind, `null`, map[string]any{"data": nil, "data_base64": base64.StdEncoding.EncodeToString([]byte(data))})
}

func structured(t testing.TB, event, change map[string]any) string {
	t.Helper()
	for name, value := range change {
		event[name] = value
		if value == nil {
			delete(event, name)
		}
	}
	b, err := json.Marshal(event)
	require.NoError(t, err)
	return string(b)
}

// edited is a JSON body with the members of the object at path changed; nil
// removes a member.
func edited(t testing.TB, body string, change map[string]any, path ...any) string {
	t.Helper()
	var doc any
	require.NoError(t, json.Unmarshal([]byte(body), &doc))
	at := doc
	for _, p := range path {
		switch p := p.(type) {
		case string:
			at = at.(map[string]any)[p]
		case int:
			at = at.([]any)[p]
		}
	}
	object := at.(map[string]any)
	maps.Copy(object, change)
	maps.DeleteFunc(object, func(name string, value any) bool { return value == nil })
	b, err := json.Marshal(doc)
	require.NoError(t, err)
	return string(b)
}

// bare is a connect whose payload has no wrapper, as the iOS, Android and Flutter
// SDKs hand it over.
func bare(t testing.TB, body string) string {
	t.Helper()
	var doc struct{ Payload map[string]any }
	require.NoError(t, json.Unmarshal([]byte(body), &doc))
	for _, form := range doc.Payload {
		return edited(t, body, map[string]any{"payload": form})
	}
	panic("no form")
}

func TestValidBodiesAreAccepted(t *testing.T) {
	for name, bodies := range validBodies(t) {
		for _, body := range bodies {
			require.NoError(t, decoders[name]([]byte(body)), "%s: %s", name, body)
		}
	}
}
