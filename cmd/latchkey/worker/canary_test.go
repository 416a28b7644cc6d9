package worker_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
)

// traces are the forms in which a secret could be found.
func traces(secret string) map[string]string {
	out := map[string]string{"raw": secret}
	quoted, _ := json.Marshal(secret)
	out["JSON"] = string(quoted[1 : len(quoted)-1])
	out["hex"] = hex.EncodeToString([]byte(secret))
	out["HEX"] = strings.ToUpper(out["hex"])
	// Base64 of a text that holds the secret, whatever comes before it: without
	// the characters that its neighbours decide.
	for shift := range 3 {
		for name, encoding := range map[string]*base64.Encoding{"std": base64.RawStdEncoding, "url": base64.RawURLEncoding} {
			text := encoding.EncodeToString([]byte(strings.Repeat("x", shift) + secret))
			out[fmt.Sprint("base64 ", name, shift)] = text[4 : len(text)-4]
		}
	}
	return out
}

// requireNoSecret searches places for secrets in every form, and for tokens that
// no client was ever shown: all of the simulator's begin alike.
func requireNoSecret(t *testing.T, secrets iter.Seq[string], places map[string]string) {
	t.Helper()
	for secret := range secrets {
		for form, trace := range traces(secret) {
			for place, content := range places {
				if strings.Contains(content, trace) {
					t.Errorf("the %s holds a secret (%s…) as %s", place, secret[:12], form)
				}
			}
		}
	}
	for place, content := range places {
		require.NotContains(t, content, "sim-access-", place)
		require.NotContains(t, content, "sim-refresh-", place)
	}
}

func TestSecretsAreNowhereInTheClear(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"picky": {AccessLifetime: life, NeedsAccessToken: true}})
	if h.stack.MongoDB == nil || h.stack.NATS == nil {
		t.Skip("looks into the files of embedded engines")
	}
	spans := receiveTraces(t)
	w := h.worker("LATCHKEY_TRACING_ENDPOINT=" + spans.URL)
	issued := map[string]bool{stack.ClientSecret: true}
	note := func(c meshsim.Connection) {
		for _, a := range c.Accounts {
			issued[a.AccessToken.Reveal()], issued[a.RefreshToken.Reveal()] = true, true
		}
	}
	var refusals bytes.Buffer
	ask := func(r events.TokenRequest) {
		reply, code, body := h.ask(r)
		for _, token := range reply.AccessTokens {
			issued[token.AccessToken.Reveal()] = true
		}
		if code != "" {
			refusals.Write(body)
		}
	}
	refresh := func(user string) { ask(h.refusing(events.TokenRequest{UserID: user})) }

	// A life in which everything happens.
	note(h.connectAged("user-to-find", due, spec("b1"), "a", meshsim.HTTPStatus(503), meshsim.Garbage(), meshsim.MappedEnvelope("locked")))
	h.event(events.TokenRefreshed, "user-to-find")
	refresh("user-to-find")
	shared := h.issueSpec(meshsim.ConnectSpec{BrokerType: "b2", WithTokenIDs: true}, "s1", "s2")
	note(shared)
	h.publishConnected("shared", shared, time.Time{})
	h.event(events.TokenStored, "shared")
	refresh("shared")
	h.disconnect("shared", "", "s1")
	h.nth(events.TokenStored, "shared", 2)
	delayed := h.issueSpec(meshsim.ConnectSpec{BrokerType: "b3", Delayed: true}, "d")
	note(delayed)
	h.publishConnected("delayed", delayed, time.Time{})
	h.event(events.TokenRefreshed, "delayed")
	refresh("delayed")
	note(h.connectAged("mfa", over, spec("b4"), "m", meshsim.MFARequired()))
	h.event(events.TokenExpired, "mfa")
	refresh("mfa")
	note(h.connectAged("dead", over, spec("b5"), "k", meshsim.Killed("no")))
	h.event(events.TokenExpired, "dead")
	refresh("dead")
	note(h.connectAged("picky", due, spec("picky"), "p"))
	h.event(events.TokenRefreshed, "picky")
	note(h.connectAged("gone", fresh, spec("b6"), "g"))
	h.event(events.TokenStored, "gone")
	h.disconnect("gone", "", "")
	h.event(events.TokenRevoked, "gone")
	lost := h.issue("b7", "x")
	note(lost)
	h.publish(h.subjects.Connected(), `{"userId":"","payload":`+lost.Payload.Reveal()+`}`)
	h.publish(h.subjects.Connected(), `{"userId":7,"payload":`+lost.Payload.Reveal())
	letters := h.deadLetters(2)
	token := lost.Accounts[0].AccessToken.Reveal()
	for _, body := range []string{`{"userId":"` + token + `","x":"` + token, `{"userId":["` + token + `"]}`, `{"userId":"u","minTTLSeconds":"` + token + `"}`} {
		msg, err := h.nc.Request(h.subjects.TokenGet("u"), []byte(body), patience)
		require.NoError(t, err)
		require.NotEmpty(t, msg.Header.Get("Nats-Service-Error"))
		fmt.Fprint(&refusals, string(msg.Data), msg.Header)
	}

	var metrics bytes.Buffer
	families, err := w.Metrics.Gather()
	require.NoError(t, err)
	for _, f := range families {
		_, err := expfmt.MetricFamilyToText(&metrics, f)
		require.NoError(t, err)
	}
	var told bytes.Buffer
	h.mu.Lock()
	for _, e := range h.seen {
		told.WriteString(e.Subject)
		told.Write(e.Body)
	}
	h.mu.Unlock()
	w.stop()
	records := h.auditLog()
	h.stack.Stop()

	delete(issued, "")
	require.Greater(t, len(issued), 15)
	natsLog, err := os.ReadFile(filepath.Join(h.dir, "nats.log"))
	require.NoError(t, err)
	places := map[string]string{
		"database": h.files("mongodb"), "broker's files": h.files("nats"), "broker's log": string(natsLog), "log": h.logs.String(),
		"events": told.String(), "dead letters": string(bytes.Join(letters, nil)), "metrics": metrics.String(), "refusals": refusals.String(),
		"audit log": records, "spans": spans.text(),
	}
	// The search looks in the right places, and finds what is there.
	require.Contains(t, places["database"], "user-to-find")
	require.Contains(t, places["events"], "user-to-find")
	require.Contains(t, places["audit log"], "user-to-find")
	require.Contains(t, places["log"], "dead letter")
	require.Contains(t, places["spans"], "POST /api/v1/token/refresh")
	require.NotContains(t, places["spans"], "user-to-find", "spans name no user")
	require.Contains(t, places["metrics"], "latchkey_messages_total")
	require.Contains(t, places["refusals"], events.CodeExpired)
	require.Contains(t, base64.StdEncoding.EncodeToString([]byte(`{"t":"`+token+`"}`)), traces(token)["base64 std0"])
	requireNoSecret(t, maps.Keys(issued), places)
}
