package worker_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers"
)

// What no text of ours may repeat of a sender's.
const unprintable = "\x00\x1b\u0085\u202e\u2066\u200b\ufeff\U000e0041"

func TestAbuse(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	n := 0
	payload := func(change ...string) string {
		n++
		return strings.NewReplacer(change...).Replace(h.issue("coinbase", fmt.Sprint("acc-", n)).Payload.Reveal())
	}
	connected := func(user string, change ...string) string {
		return `{"userId":` + user + `,"payload":` + payload(change...) + `}`
	}
	many := func(count int, id string) string {
		var tokens []string
		for i := range count {
			tokens = append(tokens, fmt.Sprintf(`{"account":{"accountId":"%s%d"},"accessToken":"t"}`, id, i))
		}
		return `{"userId":"u","payload":{"accessToken":{"brokerType":"b","accountTokens":[` + strings.Join(tokens, ",") + `]}}}`
	}
	deep := strings.Repeat("[", 10_000)
	refused := []struct{ name, subject, body, reason string }{
		{"nothing", h.subjects.Connected(), "", "not well-formed"},
		{"nested", h.subjects.Connected(), `{"userId":"u","x":` + deep + strings.Repeat("]", 10_000) + `,"payload":` + payload() + `}`, "nested too deeply"},
		{"nested and cut", h.subjects.Connected(), deep, "not well-formed"},
		{"a name twice", h.subjects.Connected(), `{"userId":"u","userId":"v","payload":` + payload() + `}`, "twice"},
		{"not UTF-8", h.subjects.Connected(), connected("\"a\xff\""), "not UTF-8"},
		{"lone surrogate", h.subjects.Connected(), connected(`"a\ud800"`), "not UTF-8"},
		{"NUL", h.subjects.Connected(), connected(`"a\u0000"`), "U+0000"},
		{"escape", h.subjects.Connected(), connected(`"a\u001b[2J"`), "U+001B"},
		{"right to left", h.subjects.Connected(), connected("\"a\u202eb\""), "U+202E"},
		{"zero width", h.subjects.Connected(), connected("\"a\u200bb\""), "U+200B"},
		{"tag, as surrogates", h.subjects.Connected(), connected(`"a\udb40\udc41"`), "U+E0041"},
		{"no text", h.subjects.Connected(), connected(`{"$ne":null}`), "userId"},
		{"a number", h.subjects.Connected(), connected(`1e999`), "userId"},
		{"half a megabyte", h.subjects.Connected(), connected(`"` + strings.Repeat("x", 900_000) + `"`), "userId"},
		{"broker right to left", h.subjects.Connected(), connected(`"u"`, `"brokerType":"coinbase"`, "\"brokerType\":\"a\u202e\""), "brokerType: contains"},
		{"too many accounts", h.subjects.Connected(), many(1000, strings.Repeat("<", 480)), "too many accounts"},
		{"disconnect with a control", h.subjects.Disconnected(), `{"userId":"u","brokerType":"\u202e"}`, "brokerType"},
		{"disconnect of nobody", h.subjects.Disconnected(), `{"userId":{"$gt":""}}`, "userId"},
		{"due with a control", h.subjects.RefreshDue(), `{"grantId":"\u001b","version":"x"}`, "version"},
	}
	for _, c := range refused {
		h.publish(c.subject, c.body)
	}
	letters := h.deadLetters(len(refused))
	require.Len(t, letters, len(refused))
	var reasons []string
	for _, raw := range letters {
		var letter handlers.DeadLetter
		require.NoError(t, json.Unmarshal(raw, &letter))
		reasons = append(reasons, letter.Reason)
		require.False(t, strings.ContainsAny(letter.Reason, unprintable), "%q", letter.Reason)
		require.Less(t, len(letter.Reason), 300)
	}
	for _, c := range refused {
		require.Contains(t, strings.Join(reasons, "\n"), c.reason, c.name)
	}
	require.Empty(t, h.grants("u"))

	// What nobody needs to understand keeps nobody from the rest.
	for user, body := range map[string]string{
		"byte order mark":        "\ufeff" + connected(`"byte order mark"`),
		"huge lifetime":          connected(`"huge lifetime"`, `"expiresInSeconds":`, `"expiresInSeconds":1e999,"was":`),
		"negative lifetime":      connected(`"negative lifetime"`, `"expiresInSeconds":`, `"expiresInSeconds":-1,"was":`),
		"account with a control": connected(`"account with a control"`, `"accountId":"acc-`, `"accountId":"\u001b`),
	} {
		h.publish(h.subjects.Connected(), body)
		h.event(events.TokenStored, user)
		require.Len(t, h.grants(user), 1, user)
	}
	require.Len(t, h.deadLetters(len(refused)), len(refused))

	// What is taken belongs to exactly that user.
	users := []string{"é", "e\u0301", "a", "а", "A", "a.b", "a%2Eb", "*", ">", "a b", "a/b", "💥", "__proto__", "$ne", "constructor", "ﬁ", "fi", strings.Repeat("é", 128)}
	for i, user := range users {
		h.publishConnected(user, h.issueSpec(meshsim.ConnectSpec{BrokerType: "$where.a.$b"}, fmt.Sprintf("$set.%d.x", i)), time.Time{})
	}
	for i, user := range users {
		stored := h.event(events.TokenStored, user)
		require.Equal(t, "$where.a.$b", stored.Data.BrokerType)
		reply := h.get(events.TokenRequest{UserID: user})
		require.Len(t, reply.AccessTokens, 1, user)
		require.Equal(t, fmt.Sprintf("$set.%d.x", i), reply.AccessTokens[0].AccountID)
		require.Len(t, h.grants(user), 1)
		other := users[(i+1)%len(users)]
		body, err := json.Marshal(events.TokenRequest{UserID: other})
		require.NoError(t, err)
		msg, err := h.nc.Request(h.subjects.TokenGet(user), body, patience)
		require.NoError(t, err)
		require.Equal(t, events.CodeForbidden, msg.Header.Get("Nats-Service-Error"), "%s for %s", user, other)
	}
	require.Empty(t, h.eventsOf("", "u"))

	for name, body := range map[string]string{
		"nested": `{"userId":"a","x":` + deep, "an operator": `{"userId":{"$ne":""}}`, "twice": `{"userId":"a","userId":"A"}`, "nothing": "",
		"not UTF-8": "{\"userId\":\"a\xff\"}", "huge": `{"userId":"a","minTTLSeconds":1e300}`, "control": `{"userId":"a\u001b"}`,
	} {
		msg, err := h.nc.Request(h.subjects.TokenGet("a"), []byte(body), patience)
		require.NoError(t, err)
		require.Equal(t, events.CodeBadRequest, msg.Header.Get("Nats-Service-Error"), name)
		require.False(t, bytes.ContainsAny(msg.Data, unprintable), name)
	}
	require.False(t, strings.ContainsAny(h.logs.String(), unprintable), "the log repeats what a sender wrote")
}
