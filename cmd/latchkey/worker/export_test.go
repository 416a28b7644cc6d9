package worker_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

// TestWhatIsKeptOfAUserIsExportedAndErased: an export shows something of every place, and no
// token; after an erasure it shows only what an erasure leaves.
func TestWhatIsKeptOfAUserIsExportedAndErased(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	o := &onCall{harness: h}
	require.Equal(t, cli.ExitUsage, first(o.run("export")))
	settings := []string{"LATCHKEY_DATA_KEYS_PER_USER=true", "LATCHKEY_CONNECT_MAX_BYTES=4096"}
	w := h.worker(settings...)
	grants := map[string]string{}
	var secrets []string
	for _, user := range []string{"mine", "theirs"} {
		kept := h.connectAged(user, fresh, spec("coinbase"), user+"-account")
		grants[user] = h.event(events.TokenStored, user).Data.GrantID
		h.get(events.TokenRequest{UserID: user})
		h.connectAged(user, over, spec("gemini"), user+"-g", meshsim.Killed("no"))
		h.event(events.TokenExpired, user)
		h.connectAged(user, fresh, spec("kraken"), user+"-k")
		h.nth(events.TokenStored, user, 3)
		h.disconnect(user, "kraken", "")
		h.event(events.TokenRevoked, user)
		secrets = append(secrets, kept.Accounts[0].AccessToken.Reveal(), kept.Accounts[0].RefreshToken.Reveal())
		for _, g := range h.grants(user) {
			secrets = append(secrets, string(g.Sealed.Data), base64.StdEncoding.EncodeToString(g.Sealed.Data))
			secrets = append(secrets, g.Fingerprints...)
		}
		big := h.issueSpec(meshsim.ConnectSpec{BrokerType: "kraken", LogoBytes: 8 << 10}, user+"-big")
		h.publish(h.subjects.Connected(), fmt.Sprintf(`{"userId":%q,"payload":%s}`, user, big.Payload.Reveal()))
		h.publish(h.subjects.Connected(), fmt.Sprintf(`{"payload":{"user":%q}`, user))
	}
	for _, body := range h.deadLetters(4) {
		var letter letterOf
		require.NoError(t, json.Unmarshal(body, &letter))
		secrets = append(secrets, letter.Sealed.Data)
	}
	h.eventually(func() bool { return h.scheduled(grants["mine"]) }, "the schedule is not there")
	w.stop()
	h.publish(h.subjects.Recovery(grants["mine"]), "no entry")

	export := func() (sections map[string][]json.RawMessage, whole string) {
		t.Helper()
		whole = o.ok("export", "--user", "mine")
		var doc map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(whole), &doc))
		require.JSONEq(t, `"mine"`, string(doc["user"]))
		delete(doc, "user")
		delete(doc, "at")
		sections = map[string][]json.RawMessage{}
		for name, section := range doc {
			var all []json.RawMessage
			require.NoError(t, json.Unmarshal(section, &all), name)
			require.NotNil(t, all, name)
			sections[name] = all
		}
		return sections, whole
	}
	sections, whole := export()
	for name, all := range sections {
		require.Equal(t, name != "unopenedDeadLetters", len(all) > 0, name)
	}
	require.Len(t, sections["grants"], 2)
	require.Len(t, sections["mentionedInDeadLetters"], 1)
	for _, want := range []string{grants["mine"], "mine-account", "mine-k", events.TokenRevoked, "handed_out", `"broker": "kraken"`} {
		require.Contains(t, whole, want)
	}
	require.NotContains(t, whole, "theirs")
	require.NotContains(t, whole, grants["theirs"])
	require.NotContains(t, whole, "no entry")
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return s == "" }) // of grants that have no token any more
	require.Greater(t, len(secrets), 12)
	requireNoSecret(t, slices.Values(secrets), map[string]string{"export": whole, "command line": o.shown.String()})
	record := o.ok("audit", "list", "--action", "exported", "--user", "mine", "-o", "json")
	require.Contains(t, record, `"outcome":"ok"`)
	require.Contains(t, record, `"caller"`)

	// While KMS is away nobody knows whom a dead letter is about, which may have to stay.
	// What can't be done to one is not tried with others.
	letters := o.letters()
	for want, args := range map[string][]string{
		"nothing was exported: opening dead letter .* KMS": {"export", "--user", "mine"},
		"nothing was erased: opening dead letter .* KMS":   {"users", "erase", "mine", "--yes"},
		`\Alatchkey: opening dead letter [^\n]* KMS.*\n\z`: {"deadletters", "replay", letters[0].ID, letters[1].ID},
	} {
		var stdout, stderr bytes.Buffer
		environ := slices.Concat(h.stack.Environ(), h.settings(), []string{"LATCHKEY_KMS_ENDPOINT=http://127.0.0.1:1", "LATCHKEY_KMS_TIMEOUT=100ms"})
		require.Equal(t, cli.ExitFailed, cli.Run(h.ctx, args, environ, &stdout, &stderr))
		require.Empty(t, stdout.String())
		require.Regexp(t, want, stderr.String())
	}

	// An erasure leaves what its documentation says.
	w = h.worker(settings...)
	o.ok("users", "erase", "mine", "--yes", "--events")
	left := map[string]bool{"audit": true, "disconnects": true, "dataKeys": true, "events": true, "mentionedInDeadLetters": true}
	sections, _ = export()
	for name, all := range sections {
		require.Equal(t, left[name], len(all) > 0, name)
	}
	for _, event := range sections["events"] {
		require.Contains(t, string(event), events.TokenRevoked)
	}
	var key struct{ SealsUntil time.Time }
	require.NoError(t, json.Unmarshal(sections["dataKeys"][0], &key))
	require.False(t, key.SealsUntil.After(time.Now()), "it is retired")

	// What can't be read is not left out in silence. A worker would create the stream again.
	w.stop()
	require.NoError(t, h.js.DeleteStream(h.ctx, h.subjects.LifecycleStream()))
	code, stdout, stderr := o.run("export", "--user", "mine")
	require.Equal(t, cli.ExitFailed, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "nothing was exported")
}

// While there is no audit log, none of its streams is added. What was written before is kept still.
func TestAnExportFindsTheAuditLogOfBeforeItWasOff(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker()
	h.connectAged("u", fresh, spec("coinbase"), "u")
	h.event(events.TokenStored, "u")
	h.get(events.TokenRequest{UserID: "u"})
	w.stop()
	settings := []string{"LATCHKEY_AUDIT_MODE=off", "LATCHKEY_NATS_PARTITIONS=2"}
	h.worker(settings...)
	var stdout, stderr bytes.Buffer
	require.Equal(t, cli.ExitOK, cli.Run(h.ctx, []string{"export", "--user", "u"}, slices.Concat(h.stack.Environ(), h.settings(), settings), &stdout, &stderr), stderr.String())
	require.Contains(t, stdout.String(), "handed_out")
}
