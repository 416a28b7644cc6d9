package events_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

func TestRejectedEvents(t *testing.T) {
	schema := schemas(t)[events.SchemaRejected]
	for _, reason := range events.RejectedReasons {
		want := events.RejectedEvent{ID: "e", Source: "latchkey/i", Time: time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC), Data: events.Rejected{UserID: "u", Reason: reason, EventID: "x", Sequence: 7, Stream: "S", DeadLetterID: "d", Problem: "p"}}
		body, err := want.Encode()
		require.NoError(t, err)
		got, err := events.DecodeRejected(body)
		require.NoError(t, err)
		require.Equal(t, want, got)
		var event struct{ Data json.RawMessage }
		require.NoError(t, json.Unmarshal(body, &event))
		require.NoError(t, validate(t, schema, event.Data))
	}
	_, err := events.DecodeRejected([]byte(lifecycleBody))
	require.Error(t, err)
}

func TestTheIDUnderWhichAPublisherKnowsAMessage(t *testing.T) {
	structured := cloudEvent(t, events.IntegrationConnected, accessTokenForm, nil)
	msgID := map[string][]string{"Nats-Msg-Id": {"m"}}
	for _, c := range []struct {
		header map[string][]string
		body   string
		want   string
	}{
		{nil, `{}`, ""},
		{msgID, `{}`, "m"},
		{msgID, `junk`, "m"},
		{msgID, structured, "ce-1"},
		{nil, structured, "ce-1"},
		{map[string][]string{"ce-id": {"b"}, "Nats-Msg-Id": {"m"}}, `junk`, "b"},
		{map[string][]string{"ce-id": {"b"}}, structured, "ce-1"},
		{map[string][]string{"ce-id": {"b", "c"}}, `{}`, ""},
		{nil, `{"id":"no event"}`, ""},
		{map[string][]string{"ce-id": {"a%0Ab"}}, `{}`, ""},
		{map[string][]string{"ce-id": {strings.Repeat("x", 257)}}, `{}`, ""},
	} {
		require.Equal(t, c.want, events.EventID(c.header, []byte(c.body)), "%v %s", c.header, c.body)
	}
}

func TestLabels(t *testing.T) {
	with := func(labels string) events.Connected {
		c, err := events.DecodeConnected([]byte(`{"userId":"u","labels":` + labels + `,"payload":{"brokerType":"b","refreshToken":"r"}}`))
		require.NoError(t, err, labels)
		require.NotContains(t, strings.Join(c.LeftOut, " "), canary)
		return c
	}
	long := strings.Repeat("x", 65)
	for labels, want := range map[string]map[string]string{
		`null`: nil, `{}`: nil, `"` + canary + `"`: nil, `[1]`: nil,
		`{"integrationId":"i-1","b_c-D9":"","app.id":"x",".":"x"}`:             {"integrationId": "i-1", "b_c-D9": ""},
		`{"a":"1","a":"1","b":null}`:                                           {"a": "1"},
		`{"a":"1","a":"2","b":"3","a":"1"}`:                                    {"b": "3"},
		`{"a":1,"b":{},"c":"` + canary + `"}`:                                  {"c": canary},
		`{"` + canary + ` ":"x","":"x","` + long + `":"x","a":"b"}`:            {"a": "b"},
		`{"a":"` + strings.Repeat("x", 257) + `","b":"\\ud800","c":"\\u0000"}`: nil,
	} {
		labels = strings.ReplaceAll(labels, `\\`, `\`)
		require.Equal(t, want, with(labels).Labels, labels)
	}
	var many []string
	for _, name := range strings.Split("a b c d e f g h i j", " ") {
		many = append(many, `"`+name+`":"`+name+`"`)
	}
	c := with("{" + strings.Join(many, ",") + "}")
	require.Len(t, c.Labels, 8)
	require.Len(t, c.LeftOut, 2)
}
