package events_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

func TestRefusalsSayWhatIsWrong(t *testing.T) {
	type object = map[string]any
	connected := func(change object, path ...any) string { return edited(t, accessTokenForm, change, path...) }
	delayed := func(change object) string { return edited(t, delayedAuthForm, change, "payload", "delayedAuth") }
	event := func(change object) string {
		return cloudEvent(t, events.IntegrationConnected, accessTokenForm, change)
	}
	only := func(entry any) string {
		return connected(object{"accountTokens": []any{entry}}, "payload", "accessToken")
	}
	long := strings.Repeat("x", 513)

	for _, c := range []struct{ decoder, body, problem string }{
		{"connected", ``, "not well-formed JSON (at byte 0)"},
		{"connected", `{"userId":"u"`, "not well-formed JSON (at byte 13)"},
		{"connected", `{"userId":"u"} {}`, "not well-formed JSON (at byte 15)"},
		{"connected", `{"a":1,"a":2}`, "userId: invalid user id: empty"},
		{"connected", `{"userId":"u","userId":"v"}`, "userId: stands twice, with different values"},
		{"connected", "{\"userId\":\"\xff\"}", "userId: not UTF-8"},
		{"connected", `{"x":` + strings.Repeat(`[`, 20_000), "nested too deeply (at byte 10004)"},
		{"connected", `[]`, "the body: a JSON array does not fit there"},
		{"connected", `null`, "the body: a JSON null does not fit there"},
		{"connected", `{"USERID":"u"}`, "userId: invalid user id: empty"},
		{"connected", connected(object{"userId": nil}), "userId: invalid user id: empty"},
		{"connected", connected(object{"userId": 7}), "userId: a JSON number does not fit there"},
		{"connected", connected(object{"userId": strings.Repeat("é", 301)}), "userId: invalid user id: 301 characters, at most 300"},
		{"connected", connected(object{"userId": "a\u202eb"}), "userId: invalid user id: contains the control or formatting character U+202E"},
		{"connected", connected(object{"payload": nil}), "payload: needs accessToken or delayedAuth"},
		{"connected", connected(object{"payload": object{}}), "payload: needs accessToken or delayedAuth"},
		{"connected", connected(object{"payload": "x"}), "payload: a JSON string does not fit there"},
		{"connected", connected(object{"brokerType": nil}, "payload", "accessToken"), "payload.accessToken.brokerType: empty"},
		{"connected", connected(object{"brokerType": long}, "payload", "accessToken"), "payload.accessToken.brokerType: 513 bytes, at most 512"},
		{"connected", connected(object{"accountTokens": nil}, "payload", "accessToken"), "payload.accessToken.accountTokens: empty"},
		{"connected", only(object{"accessToken": object{"x": 1}, "account": object{"accountId": "a"}}), "payload.accessToken.accountTokens.0.accessToken: a JSON object does not fit there"},
		{"connected", only(object{"refreshToken": true, "account": object{"accountId": "a"}}), "payload.accessToken.accountTokens.0.refreshToken: a JSON boolean does not fit there"},
		{"connected", only("x"), "payload.accessToken.accountTokens.0: a JSON string does not fit there"},
		{"connected", connected(object{"accountTokens": object{}}, "payload", "accessToken"), "payload.accessToken.accountTokens: a JSON object does not fit there"},
		{"connected", `{"userId":"u","payload":{},"payload":{"delayedAuth":{}}}`, "payload: stands twice, with different values"},
		{"connected", delayed(object{"refreshToken": 7}), "payload.delayedAuth.refreshToken: a JSON number does not fit there"},
		{"connected", delayed(object{"refreshToken": nil}), "payload.delayedAuth.refreshToken: empty"},
		{"connected", delayed(object{"brokerType": ""}), "payload.delayedAuth.brokerType: empty"},

		{"connected", event(object{"specversion": "0.3"}), `specversion: must be "1.0"`},
		{"connected", event(object{"specversion": 1.0}), "specversion: a JSON number does not fit there"},
		{"connected", event(object{"type": "integration.disconnected"}), `the CloudEvents type must be "integration.connected" or end in ".integration.connected"`},
		{"connected", event(object{"type": "xintegration.connected"}), `the CloudEvents type must be "integration.connected" or end in ".integration.connected"`},
		{"connected", event(object{"data": nil}), "the CloudEvents message has neither data nor data_base64"},
		{"connected", event(object{"data_base64": "e30="}), "the CloudEvents message has both data and data_base64"},
		{"connected", event(object{"data": nil, "data_base64": "!"}), "data_base64: a JSON string does not fit there"},
		{"connected", event(object{"data": nil, "data_base64": 5}), "data_base64: a JSON number does not fit there"},
		{"connected", event(object{"data": nil, "data_base64": "bm90IEpTT04="}), "not well-formed JSON (at byte 1)"},
		{"connected", event(object{"data": accessTokenForm}), "the body: a JSON string does not fit there"},

		{"disconnected", `{}`, "userId: invalid user id: empty"},
		{"disconnected", edited(t, disconnectedBody, object{"brokerType": long}), "brokerType: 513 bytes, at most 512"},
		{"disconnected", edited(t, disconnectedBody, object{"accountId": long}), "accountId: 513 bytes, at most 512"},
		{"disconnected", edited(t, disconnectedBody, object{"accountId": 5}), "accountId: a JSON number does not fit there"},
		{"disconnected", edited(t, disconnectedBody, object{"disconnectedAt": "1960-01-01T00:00:00Z"}), "disconnectedAt: outside the years 1970 to 9899"},

		{"refresh due", edited(t, refreshDueBody, object{"grantId": nil}), "needs grantId, version and dueAt"},
		{"refresh due", edited(t, refreshDueBody, object{"version": 0}), "needs grantId, version and dueAt"},
		{"refresh due", edited(t, refreshDueBody, object{"dueAt": nil}), "needs grantId, version and dueAt"},
		{"refresh due", edited(t, refreshDueBody, object{"version": "1"}), "version: a JSON string does not fit there"},

		{"token request", edited(t, tokenRequestBody, object{"userId": ""}), "userId: invalid user id: empty"},
		{"token request", edited(t, tokenRequestBody, object{"minTTLSeconds": -1}), "minTTLSeconds: must lie between 0 and 3153600000"},
		{"token request", edited(t, tokenRequestBody, object{"minTTLSeconds": 3153600001}), "minTTLSeconds: must lie between 0 and 3153600000"},
		{"token request", edited(t, tokenRequestBody, object{"minTTLSeconds": 1.5}), "minTTLSeconds: a JSON number does not fit there"},
		{"token request", edited(t, tokenRequestBody, object{"minTTLSeconds": "60"}), "minTTLSeconds: a JSON string does not fit there"},

		{"token reply", `[]`, "the body: a JSON array does not fit there"},
		{"lifecycle", `{"userId":"u"}`, "not a CloudEvents 1.0 structured message"},
		{"lifecycle", edited(t, lifecycleBody, object{"data_base64": 5, "data": nil}), "data_base64: a JSON number does not fit there"},
		{"lifecycle", edited(t, lifecycleBody, object{"version": "x"}, "data"), "version: a JSON string does not fit there"},
	} {
		err := decoders[c.decoder]([]byte(c.body))
		var invalid *events.InvalidError
		require.ErrorAs(t, err, &invalid, c.body)
		require.Equal(t, c.problem, invalid.Problem, c.body)
		require.Equal(t, "invalid "+invalid.Message+": "+invalid.Problem, err.Error())
	}
}

func TestNamesOfTheSenderAreNotRepeated(t *testing.T) {
	_, err := events.DecodeConnected([]byte(`{"userId":"u","payload":{"accessToken":{"brokerType":"b","accountTokens":{"` + canary + `":1}}}}`))
	require.EqualError(t, err, "invalid integration.connected: payload.accessToken.accountTokens: a JSON object does not fit there")
}
