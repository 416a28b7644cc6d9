package events_test

import (
	"crypto/ecdh"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

func TestSealedConnect(t *testing.T) {
	enveloped := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		body string
		at   time.Time // of a message that states none
	}{
		"plain":          {`{"sealed":"a.b"}`, time.Time{}},
		"in CloudEvents": {cloudEvent(t, events.IntegrationConnected, `{"sealed":"a.b"}`, nil), enveloped},
		"in base64":      {cloudEvent64(t, events.IntegrationConnected, `{"sealed":"a.b"}`), enveloped},
	} {
		sealed, err := events.UnwrapConnected(nil, []byte(c.body))
		require.NoError(t, err, name)
		require.Equal(t, "a.b", sealed.JWE, name)
		plain, err := events.DecodeConnected([]byte(accessTokenForm))
		require.NoError(t, err)
		opened, err := sealed.DecodeOpened([]byte(accessTokenForm))
		require.NoError(t, err, name)
		require.Equal(t, plain, opened, name)
		opened, err = sealed.DecodeOpened([]byte(delayedAuthForm))
		require.NoError(t, err, name)
		require.Equal(t, c.at, opened.ConnectedAt, name)

		// What does not know of sealing must not take it for an empty message.
		_, err = events.DecodeConnected([]byte(c.body))
		require.ErrorContains(t, err, "sealed: it must be opened first", name)

		_, err = sealed.DecodeOpened([]byte(c.body))
		require.Error(t, err, "%s: sealed twice, or enveloped within", name)
		_, err = sealed.DecodeOpened([]byte(cloudEvent(t, events.IntegrationConnected, accessTokenForm, nil)))
		require.Error(t, err, "%s: enveloped within", name)
	}
	for _, body := range []string{accessTokenForm, `{}`, `{"Sealed":"x"}`, `{"payload":{"sealed":"x"}}`} {
		sealed, err := events.UnwrapConnected(nil, []byte(body))
		require.NoError(t, err, body)
		require.Empty(t, sealed.JWE, body)
	}
	for body, problem := range map[string]string{
		`{"sealed":"x","payload":{}}`:       "nothing may stand beside it",
		`{"sealed":"x","userId":"u"}`:       "nothing may stand beside it",
		`{"sealed":"x","more":null}`:        "nothing may stand beside it",
		`{"sealed":"x","sealed":"y"}`:       "stands twice, with different values",
		`{"sealed":null}`:                   "a JSON null does not fit there",
		`{"sealed":["x"]}`:                  "a JSON array does not fit there",
		`{"sealed":""}`:                     "sealed: empty",
		`{"sealed":"\ud800"}`:               "not UTF-8",
		`{"sealed":"x"`:                     "not well-formed JSON",
		"[]":                                "a JSON array does not fit there",
		"null":                              "a JSON null does not fit there",
		`{"specversion":"0.3","sealed":""}`: "specversion",
	} {
		_, err := events.UnwrapConnected(nil, []byte(body))
		if problem == "not UTF-8" && err != nil {
			requireClean(t, err, body)
			continue
		}
		require.ErrorContains(t, err, problem, body)
	}
}

// TestASealedConnectInAWrongEnvelope is seen to be sealed: nothing has to be removed.
func TestASealedConnectInAWrongEnvelope(t *testing.T) {
	const sealed, tokens = `{"sealed":"a.b"}`, `{"accessToken":"x"}`
	event := func(data string, change map[string]any) string {
		return cloudEvent(t, events.IntegrationConnected, data, change)
	}
	type object = map[string]any
	foreign := events.HeadersOf(map[string][]string{"ce-type": {"foreign"}, "ce-specversion": {"1.0"}})
	old := events.HeadersOf(map[string][]string{"Ce-Specversion": {"0.3"}})
	for _, c := range []struct {
		h      events.Headers
		body   string
		sealed bool
	}{
		{foreign, sealed, true},
		{old, sealed, true},
		{foreign, event(sealed, nil), true},
		{nil, event(sealed, object{"specversion": "1.1"}), true},
		{nil, event(sealed, object{"specversion": 1}), true},
		{nil, event(sealed, object{"type": "foreign"}), true},
		{nil, event(sealed, object{"type": 5}), true},
		{nil, strings.Replace(cloudEvent64(t, events.IntegrationConnected, sealed), `"1.0"`, `"1.1"`, 1), true},
		{foreign, accessTokenForm, false},
		{foreign, `{"sealed":"a.b","userId":"u"}`, false},
		{foreign, `{"sealed":"a.b"`, false},
		{foreign, `{"payload":` + tokens + `,"data":` + sealed + `}`, false},
		{nil, event(sealed, object{"specversion": "1.1", "payload": json.RawMessage(tokens)}), false},
		{nil, event(sealed, object{"data_base64": "e30="}), false},
		{nil, event(accessTokenForm, object{"specversion": "1.1"}), false},
		{nil, `{"specversion":"1.1","data":` + sealed + `,"data":` + tokens + `}`, false},
	} {
		got, err := events.UnwrapConnected(c.h, []byte(c.body))
		require.Error(t, err, c.body)
		require.Equal(t, c.sealed, got.JWE != "", c.body)
		if c.sealed {
			require.Equal(t, "a.b", got.JWE)
		}
	}
}

func TestSealedReplyIsNotTakenForAnEmptyOne(t *testing.T) {
	_, err := events.DecodeTokenReply([]byte(`{"sealed":"x"}`))
	require.ErrorContains(t, err, "must be opened first")
	jwe, err := events.SealedReply([]byte(`{"sealed":"x"}`))
	require.NoError(t, err)
	require.Equal(t, "x", jwe)
	jwe, err = events.SealedReply([]byte(tokenReplyBody))
	require.NoError(t, err)
	require.Empty(t, jwe)
	require.JSONEq(t, `{"sealed":"x"}`, string(events.EncodeSealed("x")))
}

func TestJWK(t *testing.T) {
	keys, err := events.DecodeTokenKeys([]byte(tokenKeysBody))
	require.NoError(t, err)
	point, err := keys.Keys[0].PublicKey()
	require.NoError(t, err)
	again, err := events.NewJWK(point)
	require.NoError(t, err)
	require.Equal(t, keys.Keys[0], again)
	require.Equal(t, keyID, keys.Keys[0].Thumbprint())

	other, err := ecdh.P384().GenerateKey(nil)
	require.NoError(t, err)
	_, err = events.NewJWK(other.PublicKey())
	require.Error(t, err)
}

func TestKeysOfOtherKindsAreLeftOut(t *testing.T) {
	var set struct{ Keys []json.RawMessage }
	require.NoError(t, json.Unmarshal([]byte(tokenKeysBody), &set))
	odd := `{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"OKP","crv":"X25519","x":"AQAB"}`
	keys, err := events.DecodeTokenKeys([]byte(`{"keys":[` + odd + `,` + string(set.Keys[0]) + `]}`))
	require.NoError(t, err)
	require.Len(t, keys.Keys, 1)
	_, err = events.DecodeTokenKeys([]byte(`{"keys":[` + odd + `]}`))
	require.ErrorContains(t, err, "no key for")
}

func TestSealToMustBeAPublicKey(t *testing.T) {
	type object = map[string]any
	for problem, change := range map[string]object{
		"sealTo: has a private part":                   {"d": canary},
		"sealTo: kty: must be EC":                      {"kty": canary},
		"sealTo: crv: must be P-256":                   {"crv": canary},
		"sealTo: use: must be enc":                     {"use": canary},
		"sealTo: alg: must be ECDH-ES+A256KW":          {"alg": canary},
		"sealTo: x: must be 32 bytes in base64url":     {"x": canary},
		"sealTo: y: must be 32 bytes in base64url":     {"y": strings.Repeat("\n", 43)},
		"sealTo: x and y are no point on the curve":    {"x": keyY},
		"sealTo.kid: a JSON number does not fit there": {"kid": 7},
	} {
		_, err := events.DecodeTokenRequest([]byte(edited(t, sealToBody, change, "sealTo")))
		require.ErrorContains(t, err, problem)
		requireClean(t, err, problem)
	}
	r, err := events.DecodeTokenRequest([]byte(`{"userId":"u","sealTo":null}`))
	require.NoError(t, err)
	require.Nil(t, r.SealTo)
}
