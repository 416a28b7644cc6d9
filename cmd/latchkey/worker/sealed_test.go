package worker_test

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/sealing"
	"github.com/latchkey/latchkey/handlers"
)

// keys asks for the workers' keys.
func (h *harness) keys() events.TokenKeys {
	h.t.Helper()
	msg, err := h.nc.Request(h.subjects.TokenKeys(), nil, patience)
	require.NoError(h.t, err)
	require.Empty(h.t, msg.Header)
	keys, err := events.DecodeTokenKeys(msg.Data)
	require.NoError(h.t, err)
	return keys
}

// sealed is the sealed form of a connect.
func (h *harness) sealed(user string, c meshsim.Connection) string {
	h.t.Helper()
	key, err := sealing.NewPublicKey(h.keys().Keys[0])
	require.NoError(h.t, err)
	body, err := key.Seal(fmt.Appendf(nil, `{"userId":%q,"payload":%s}`, user, c.Payload.Reveal()))
	require.NoError(h.t, err)
	return string(body)
}

// getSealed asks for tokens by a request whose reply is sealed.
func (h *harness) getSealed(user string) (reply events.TokenReply, body []byte) {
	h.t.Helper()
	key, err := sealing.GenerateKey()
	require.NoError(h.t, err)
	jwk := key.Public().JWK()
	request, err := json.Marshal(events.TokenRequest{UserID: user, SealTo: &jwk})
	require.NoError(h.t, err)
	msg, err := h.nc.Request(h.subjects.TokenGet(user), request, patience)
	require.NoError(h.t, err)
	require.Empty(h.t, msg.Header, string(msg.Data))
	reply, err = sealing.OpenReply(msg.Data, key)
	require.NoError(h.t, err)
	return reply, msg.Data
}

// TestSealedConnectsLeaveNoTokenBehind plays what can become of sealed connects
// on a broker that encrypts nothing, and looks for their tokens everywhere.
func TestSealedConnectsLeaveNoTokenBehind(t *testing.T) {
	t.Parallel()
	h := startWith(t, stack.Options{NATSInTheClear: true})
	if h.stack.MongoDB == nil || h.stack.NATS == nil {
		t.Skip("looks into the files of embedded engines")
	}
	o := &onCall{harness: h}
	sealedOnly := []string{"LATCHKEY_CONNECT_REQUIRE_SEALED=true", "LATCHKEY_CONNECT_MAX_BYTES=8192"}
	w := h.worker(sealedOnly...)
	issued := map[string]bool{}
	issue := func(spec meshsim.ConnectSpec, account string) meshsim.Connection {
		c := h.issueSpec(spec, account)
		for _, a := range c.Accounts {
			issued[a.AccessToken.Reveal()], issued[a.RefreshToken.Reveal()] = true, true
		}
		return c
	}

	// Connects that wait for a worker, as during an outage: now they lie in the
	// broker's files, and so does a plain one, which shows that the search finds
	// what is there.
	const plainToken = "token-in-the-clear-0123456789"
	plain := `{"userId":"mallory","payload":{"token":"` + plainToken + `"}}`
	c := issue(spec("coinbase"), "a")
	stated := time.Date(2022, 1, 2, 3, 4, 5, 0, time.UTC)
	waiting := []string{
		h.sealed("user-to-find", c),
		cloudEvent(events.IntegrationConnected, stated.Format(time.RFC3339), h.sealed("enveloped", issue(spec("coinbase"), "b"))),
		h.sealed("delayed", issue(meshsim.ConnectSpec{BrokerType: "coinbase", Delayed: true}, "c")),
		plain,
	}
	w.stop()
	for _, body := range waiting {
		h.publish(h.subjects.Connected(), body)
	}
	reconnects := h.nc.Stats().Reconnects
	h.stack.NATS.Stop()
	brokerFiles := h.files("nats")
	require.NoError(t, h.stack.NATS.Restart())
	h.eventually(func() bool { return h.nc.Stats().Reconnects > reconnects && h.nc.Flush() == nil }, "not connected again")
	require.Contains(t, brokerFiles, plainToken)
	require.Contains(t, brokerFiles, `{"sealed":"`)
	w = h.worker(sealedOnly...)
	h.event(events.TokenStored, "user-to-find")
	require.WithinRange(t, *h.event(events.TokenStored, "enveloped").Data.ExpiresAt, stated.Add(life-time.Second), stated.Add(life))
	h.event(events.TokenRefreshed, "delayed")
	h.deadLetters(1)
	unsealed := o.letters()[0].ID
	require.Contains(t, o.fails("deadletters", "replay", unsealed), "there is nothing to replay: its body was not sealed")
	o.ok("deadletters", "drop", "--yes", unsealed)

	// Replies that only the requester reads.
	reply, body := h.getSealed("user-to-find")
	require.Equal(t, c.Accounts[0].AccessToken.Reveal(), reply.AccessTokens[0].AccessToken.Reveal())
	var replies bytes.Buffer
	replies.Write(body)
	key, err := ecdh.P256().GenerateKey(nil)
	require.NoError(t, err)
	jwk, err := events.NewJWK(key.PublicKey())
	require.NoError(t, err)
	leaked := base64.RawURLEncoding.EncodeToString(key.Bytes())
	msg, err := h.nc.Request(h.subjects.TokenGet("user-to-find"), fmt.Appendf(nil,
		`{"userId":"user-to-find","sealTo":{"kty":"EC","crv":"P-256","x":%q,"y":%q,"d":%q}}`, jwk.X, jwk.Y, leaked), patience)
	require.NoError(t, err)
	require.Equal(t, events.CodeBadRequest, msg.Header.Get("Nats-Service-Error"))
	require.Contains(t, string(msg.Data), "private part")
	require.NotContains(t, string(msg.Data), leaked)

	// Connects that are refused, each for its reason.
	big := h.sealed("big", issue(meshsim.ConnectSpec{BrokerType: "coinbase", LogoBytes: 12 << 10}, "big"))
	good := h.sealed("mallory", issue(spec("coinbase"), "m"))
	foreign, err := sealing.GenerateKey()
	require.NoError(t, err)
	toForeign, err := foreign.Public().Seal([]byte(`{"userId":"mallory"}`))
	require.NoError(t, err)
	at := len(good) - 10 // within the tag
	other := "A"
	if good[at] == 'A' {
		other = "B"
	}
	changed := good[:at] + other + good[at+1:]
	withoutUser := func() string {
		key, err := sealing.NewPublicKey(h.keys().Keys[0])
		require.NoError(t, err)
		inner, err := key.Seal(fmt.Appendf(nil, `{"payload":%s}`, c.Payload.Reveal()))
		require.NoError(t, err)
		return string(inner)
	}()
	refused := []struct{ body, reason string }{
		{big, "max_bytes"},
		{string(toForeign), "kid: names no key"},
		{changed, "does not open"},
		{`{"sealed":"a.b.c"}`, "compact serialization"},
		{withoutUser, "userId"},
		{strings.Replace(good, `{`, `{"userId":"victim",`, 1), "beside it; not sealed"},
		{plain, "not sealed, which connect.require_sealed demands"},
		{`{"token":"` + plainToken, "not well-formed JSON (at byte 39); not sealed"},
	}
	for i, r := range refused {
		h.publish(h.subjects.Connected(), r.body)
		h.deadLetters(i + 1) // keeps the order
	}
	letters := o.letters()
	require.Len(t, letters, len(refused))
	var parked bytes.Buffer
	for i, raw := range h.deadLetters(len(refused)) {
		require.Contains(t, letters[i].Reason, refused[i].reason)
		var letter handlers.DeadLetter
		require.NoError(t, json.Unmarshal(raw, &letter))
		removed := strings.Contains(refused[i].reason, "not sealed")
		require.Equal(t, removed, letter.BodyRemoved, letter.Reason)
		require.Equal(t, removed, len(letter.Sealed.Data) == 0, letter.Reason)
		shown := o.ok("deadletters", "show", letter.ID)
		require.Equal(t, removed, strings.Contains(shown, "removed; there is nothing to replay"), shown)
		parked.Write(raw)
	}
	require.Empty(t, h.grants("mallory"))
	require.Empty(t, h.grants("victim"))

	// A key has its time, and what was sealed to it opens after that.
	old := h.keys()
	w.stop()
	_, err = h.mongo().Database(h.database).Collection("connect_keys").UpdateMany(h.ctx, bson.D{},
		bson.D{{Key: "$set", Value: bson.D{{Key: "createdAt", Value: time.Now().Add(-31 * 24 * time.Hour)}}}})
	require.NoError(t, err)
	w = h.worker(sealedOnly[0])
	rotated := h.keys()
	require.Len(t, rotated.Keys, 2)
	require.Equal(t, old.Keys[0], rotated.Keys[1])
	require.Contains(t, o.ok("deadletters", "replay", letters[0].ID), "replayed")
	h.event(events.TokenStored, "big")
	h.publish(h.subjects.Connected(), h.sealed("after", issue(spec("coinbase"), "after")))
	h.event(events.TokenStored, "after")
	h.handled()

	var told bytes.Buffer
	h.mu.Lock()
	for _, e := range h.seen {
		told.WriteString(e.Subject)
		told.Write(e.Body)
	}
	h.mu.Unlock()
	w.stop()
	h.stack.Stop()
	natsLog, err := os.ReadFile(filepath.Join(h.dir, "nats.log"))
	require.NoError(t, err)
	places := map[string]string{
		"broker's files": brokerFiles + h.files("nats"), "broker's log": string(natsLog), "database": h.files("mongodb"), "log": h.logs.String(),
		"events": told.String(), "dead letters": parked.String(), "sealed replies": replies.String(), "command line": o.shown.String(),
	}
	require.Contains(t, places["broker's files"], "user-to-find", "the broker encrypts nothing")
	delete(issued, "")
	require.Len(t, issued, 11)
	requireNoSecret(t, maps.Keys(issued), places)
	for place, content := range places {
		if place != "broker's files" {
			require.NotContains(t, content, plainToken, place)
		}
	}
}
