package worker_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

func TestRestartGoesOnWhereTheLastEnded(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker()
	h.connectAged("u", due-20*time.Minute, spec("coinbase"), "a")
	stored := h.event(events.TokenStored, "u")
	w.stop()
	// Published while nobody runs.
	h.connectAged("v", due, spec("coinbase"), "b")
	w = h.worker()
	h.event(events.TokenRefreshed, "v")
	w.stop()
	h.worker()
	require.Len(t, h.get(events.TokenRequest{UserID: "u"}).AccessTokens, 1)
	require.Equal(t, stored.Data.GrantID, h.grants("u")[0].ID)
	require.EqualValues(t, 1, h.grants("u")[0].Version)
	require.Len(t, h.requests("b"), 1)
	require.Len(t, h.eventsOf("", "u"), 1)
	require.Len(t, h.eventsOf("", "v"), 2)
}

func TestWhatFellDueWhileNobodyRanIsRefreshed(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"short": {AccessLifetime: 4 * time.Second, RefreshLifetime: life}})
	w := h.worker()
	h.connect("u", spec("short"))
	h.event(events.TokenStored, "u")
	w.stop()
	before := h.grants("u")[0]
	h.eventually(func() bool { return time.Now().After(before.Due.At) }, "it never falls due")
	h.worker()
	h.nth(events.TokenRefreshed, "u", int(before.Version)) // version 1 is the stored one
}

func TestSchedulesAreMadeAgainAfterNATSWasWiped(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"short": {AccessLifetime: 6 * time.Second, RefreshLifetime: life}})
	if h.stack.NATS == nil {
		t.Skip("wipes an embedded NATS")
	}
	w := h.worker()
	h.connect("u", spec("short"))
	h.connectAged("later", fresh, spec("coinbase"), "later")
	h.event(events.TokenStored, "u")
	h.event(events.TokenStored, "later")
	w.stop()
	before := h.grants("u")[0]
	require.NoError(t, h.stack.NATS.Wipe())
	require.NoError(t, h.stack.NATS.Restart())
	h.eventually(func() bool { return h.nc.IsConnected() && h.nc.Flush() == nil }, "no connection")
	h.worker()
	h.nth(events.TokenRefreshed, "u", int(before.Version))
	h.eventually(func() bool { return h.scheduled(h.grants("later")[0].ID) }, "no schedule for what is due later")
	require.Contains(t, h.logs.String(), "NATS was wiped")
}

func TestStopDuringASlowAnswerKeepsIt(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker()
	h.connectAged("u", due, spec("coinbase"), "a", meshsim.Delay(3*time.Second, 3*time.Second))
	h.eventually(func() bool { return len(h.underWay("a")) > 0 }, "no refresh")
	w.stop()
	requests := h.requests("a")
	require.Len(t, requests, 1)
	require.True(t, requests[0].Delivered, requests[0].Undelivered)
	h.event(events.TokenRefreshed, "u")
	h.worker()
	token := h.get(events.TokenRequest{UserID: "u"}).AccessTokens[0].AccessToken
	require.Equal(t, meshsim.FingerprintOf(token), h.chain("a").Access[1].Fingerprint)
	h.get(h.refusing(events.TokenRequest{UserID: "u"}))
	require.Empty(t, h.stack.Mesh.Ledger().ReplacedPresented())
	require.True(t, h.chain("a").Alive())
}

func TestStopWhileMeshHangsEndsWithinTheGrace(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"graceful": {AccessLifetime: life, RefreshLifetime: 24 * life, Grace: life}})
	w := h.worker("LATCHKEY_MESH_TIMEOUT=2s", "LATCHKEY_MONGODB_TIMEOUT=5s", "LATCHKEY_WORKER_GRACE=10s")
	h.connectAged("u", due, spec("graceful"), "a", meshsim.Hang())
	h.eventually(func() bool { return len(h.underWay("a")) > 0 }, "no refresh")
	w.stop()
	h.worker()
	h.event(events.TokenRefreshed, "u")
	require.Empty(t, h.stack.Mesh.Ledger().DoubleSpends())
}

func TestWhatIsMissingAtTheStartIsNamed(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	plain, err := engines.StartNATS(engines.NATSOptions{Dir: t.TempDir(), Configure: func(o *server.Options) { o.JetStream = false }})
	require.NoError(t, err)
	t.Cleanup(plain.Stop)
	for name, c := range map[string]struct {
		settings []string
		want     string
	}{
		"NATS without JetStream": {[]string{"LATCHKEY_NATS_URL=" + plain.URL()}, "JetStream is off"},
		"no NATS":                {[]string{"LATCHKEY_NATS_URL=nats://user:pass-word-1@127.0.0.1:1"}, "nats.url"},
		"no MongoDB":             {[]string{"LATCHKEY_MONGODB_URI=mongodb://user:pass-word-1@127.0.0.1:1/?directConnection=true", "LATCHKEY_MONGODB_TIMEOUT=500ms"}, "reaching MongoDB"},
		"another KMS key":        {[]string{"LATCHKEY_KMS_KEY_ID=alias/other"}, "kms.key_id"},
		"no KMS":                 {[]string{"LATCHKEY_KMS_ENDPOINT=http://127.0.0.1:1", "LATCHKEY_KMS_TIMEOUT=500ms"}, "kms.key_id"},
		"taken address":          {[]string{"LATCHKEY_ADMIN_LISTEN=" + plain.URL()[len("nats://"):]}, "admin.listen (LATCHKEY_ADMIN_LISTEN sets another address)"},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.in(t)
			_, err := h.tryWorker(c.settings...)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error()+h.logs.String(), "pass-word-1")
		})
	}
	// None of it leaves anything behind that hinders a proper start.
	h.worker()
	h.connectAged("u", fresh, spec("coinbase"), "a")
	h.event(events.TokenStored, "u")
}
