package worker_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
)

// everything returns the documents of all collections.
func (h *harness) everything() []byte {
	h.t.Helper()
	var all bytes.Buffer
	db := h.mongo().Database(h.database)
	names, err := db.ListCollectionNames(h.ctx, bson.D{})
	require.NoError(h.t, err)
	for _, name := range names {
		cursor, err := db.Collection(name).Find(h.ctx, bson.D{})
		require.NoError(h.t, err)
		for cursor.Next(h.ctx) {
			all.Write(cursor.Current)
		}
		require.NoError(h.t, cursor.Err())
	}
	return all.Bytes()
}

// While KMS is away, all goes on for which a data key is at hand, though its age
// is over. What needs a new one waits, and is stored when KMS is back.
func TestWhileKMSIsAwayKnownGrantsGoOn(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"quick": {AccessLifetime: 3 * time.Second, RefreshLifetime: life}})
	w := h.worker("LATCHKEY_DATA_KEYS_PER_USER=true", "LATCHKEY_DATA_KEYS_CACHE_AGE=1s", "LATCHKEY_DATA_KEYS_MAX_AGE=1s", "LATCHKEY_KMS_TIMEOUT=500ms")
	h.connect("known", spec("quick"))
	h.event(events.TokenRefreshed, "known")

	h.stack.KMS.Faults().Always(kmssim.ServiceUnavailable)
	failed := w.counter("latchkey_kms_calls_total", "result", "error")
	h.eventually(func() bool { return w.counter("latchkey_kms_calls_total", "result", "error") > failed }, "the keys' ages are over")
	n := len(h.eventsOf(events.TokenRefreshed, "known"))
	waiting := h.issue("coinbase", "new")
	h.publishConnected("new", waiting, time.Time{})
	h.nth(events.TokenRefreshed, "known", n+2)
	h.given(events.TokenRequest{UserID: "known", MinTTLSeconds: new(int64)})
	h.eventually(func() bool { return w.counter("latchkey_messages_total", "outcome", "retry") > 1 }, "the connect is tried")
	require.Empty(t, h.eventsOf("", "new"))
	require.Empty(t, h.grants("new"))
	stored := h.everything()
	require.NotEmpty(t, stored)
	requireNoSecret(t, slices.Values([]string{waiting.Accounts[0].AccessToken.Reveal(), waiting.Accounts[0].RefreshToken.Reveal()}),
		map[string]string{"database": string(stored), "log": h.logs.String()})

	h.stack.KMS.Faults().Clear()
	h.event(events.TokenStored, "new")
	require.Zero(t, w.counter("latchkey_messages_total", "outcome", "parked"))
	require.Len(t, h.given(events.TokenRequest{UserID: "new"}).AccessTokens, 1)
	require.Empty(t, h.eventsOf(events.TokenExpired, "known"))
	require.NoError(t, h.stack.Mesh.WaitIdle(h.ctx))
	require.Empty(t, h.stack.Mesh.Ledger().ReplacedPresented())
}

// A KMS key that an operator disables ends everything at once, and nothing is
// lost when he enables it again.
func TestADisabledKMSKeyStopsKnownGrants(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker("LATCHKEY_DATA_KEYS_CACHE_AGE=1s", "LATCHKEY_KMS_TIMEOUT=500ms", "LATCHKEY_TOKENS_TIMEOUT=2s")
	h.connect("known", spec("coinbase"))
	h.event(events.TokenStored, "known")
	kek, err := h.stack.KMS.CreateKey(stack.KeyAlias)
	require.NoError(t, err)
	_, err = h.kms().DisableKey(h.ctx, &kms.DisableKeyInput{KeyId: &kek})
	require.NoError(t, err)
	h.eventually(func() bool {
		_, code, _ := h.ask(events.TokenRequest{UserID: "known"})
		return code == events.CodeBusy
	}, "tokens are given out though KMS refuses")
	h.publishConnected("new", h.issue("coinbase", "new"), time.Time{})
	h.eventually(func() bool { return w.counter("latchkey_messages_total", "outcome", "retry") > 0 }, "the key for sealing is still there")
	require.Empty(t, h.eventsOf("", "new"))

	_, err = h.kms().EnableKey(h.ctx, &kms.EnableKeyInput{KeyId: &kek})
	require.NoError(t, err)
	h.event(events.TokenStored, "new")
	h.eventually(func() bool {
		_, code, _ := h.ask(events.TokenRequest{UserID: "known"})
		return code == ""
	}, "tokens come again")
	require.Zero(t, w.counter("latchkey_messages_total", "outcome", "parked"))
}
