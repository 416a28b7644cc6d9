package worker_test

import (
	"encoding/base64"
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

func TestMessagesThatCannotBeHandledAreParkedSealed(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker("LATCHKEY_CONNECT_MAX_BYTES=16384")
	c := h.issue("coinbase", "a")
	token := c.Accounts[0].AccessToken.Reveal()
	payload := c.Payload.Reveal()
	big := h.issueSpec(meshsim.ConnectSpec{BrokerType: "coinbase", LogoBytes: 20 << 10}, "b").Payload.Reveal()
	poison := []struct{ subject, body, reason string }{
		{h.subjects.Connected(), ``, "not well-formed"},
		{h.subjects.Connected(), token, "not well-formed"},
		{h.subjects.Connected(), `"` + token + `"`, "string"},
		{h.subjects.Connected(), `{"userId":"u","payload":` + payload + `}}`, "not well-formed"},
		{h.subjects.Connected(), `{"payload":` + payload + `}`, "userId"},
		{h.subjects.Connected(), `{"userId":"` + token + `\u0000","payload":` + payload + `}`, "userId"},
		{h.subjects.Connected(), `{"userId":"u","payload":{}}`, "payload"},
		{h.subjects.Connected(), `{"userId":"u","payload":{"` + token + `":1,"accessToken":{"accountTokens":"` + token + `"}}}`, "accountTokens"},
		{h.subjects.Connected(), `{"userId":"u","userId":"` + token + `","payload":` + payload + `}`, "twice"},
		{h.subjects.Connected(), `{"userId":"u","payload":` + strings.Replace(payload, `"brokerType":"coinbase"`, `"brokerType":""`, 1) + `}`, "brokerType"},
		{h.subjects.Connected(), `{"userId":"u","payload":` + big + `}`, "max_bytes"},
		{h.subjects.Connected(), cloudEvent("com.example.other", "2026-01-02T03:04:05Z", `{"userId":"u","payload":`+payload+`}`), "type"},
		{h.subjects.Disconnected(), `{"brokerType":"` + token + `"}`, "userId"},
		{h.subjects.RefreshDue(), `{"grantId":"` + token + `"}`, "version"},
	}
	for _, p := range poison {
		h.publish(p.subject, p.body)
	}
	h.publishConnected("good", h.issue("coinbase", "c"), time.Time{})
	h.event(events.TokenStored, "good")

	letters := h.deadLetters(len(poison))
	require.Len(t, letters, len(poison))
	var reasons []string
	for _, raw := range letters {
		var letter handlers.DeadLetter
		require.NoError(t, json.Unmarshal(raw, &letter))
		reasons = append(reasons, letter.Subject+": "+letter.Reason)
		require.Equal(t, 1, letter.Attempts)
		require.False(t, letter.StoredAt.IsZero())
		require.NotContains(t, string(raw), token)
		require.NotContains(t, string(raw), base64.StdEncoding.EncodeToString([]byte(token))[:40])
	}
	for _, p := range poison {
		require.Condition(t, func() bool {
			for _, r := range reasons {
				if strings.HasPrefix(r, p.subject+": ") && strings.Contains(r, p.reason) {
					return true
				}
			}
			return false
		}, "no reason on %s names %q: %q", p.subject, p.reason, reasons)
	}
	require.Empty(t, h.grants("u"))
	require.NotContains(t, h.logs.String(), token)
	require.Equal(t, float64(len(poison)), w.counter("latchkey_messages_total", "outcome", "parked"))
	h.handled()
}

func TestEventLargerThanNATSTakesIsThePublishersError(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	_, err := h.js.Publish(h.ctx, h.subjects.Connected(), []byte(fmt.Sprintf(`{"userId":"u","x":%q}`, strings.Repeat("x", 2<<20))))
	require.Error(t, err)
	h.connectAged("u", fresh, spec("coinbase"), "a")
	h.event(events.TokenStored, "u")
}
