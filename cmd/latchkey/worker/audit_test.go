package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/audit"
)

// audited lists the audit log, narrowed by flags.
func (o *onCall) audited(flags ...string) []audit.Entry {
	o.t.Helper()
	var out []audit.Entry
	lines := json.NewDecoder(strings.NewReader(o.ok(append([]string{"audit", "list", "-o", "json"}, flags...)...)))
	for lines.More() {
		var e audit.Entry
		require.NoError(o.t, lines.Decode(&e))
		out = append(out, e)
	}
	return out
}

// shortly renders records without what differs from run to run.
func shortly(all []audit.Entry) []string {
	var out []string
	for _, e := range all {
		text := string(e.Action) + " " + e.Outcome
		for _, g := range e.Grants {
			text += fmt.Sprintf(" %s v%d %s %s", g.Broker, g.Version, strings.Join(g.Accounts, ","), g.Code)
		}
		out = append(out, strings.TrimSpace(text))
	}
	return out
}

// auditLog returns all messages of the audit log.
func (h *harness) auditLog() string {
	h.t.Helper()
	stream, err := h.js.Stream(h.ctx, h.subjects.AuditStream())
	require.NoError(h.t, err)
	var all strings.Builder
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		msg, err := stream.GetMsg(h.ctx, seq)
		require.NoError(h.t, err)
		all.Write(msg.Data)
	}
	return all.String()
}

func TestTheAuditLogTellsTheLifeOfTokens(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	o := &onCall{harness: h}
	require.Contains(t, o.fails("audit", "list"), "no audit log")
	require.Contains(t, o.fails("audit", "verify"), "no audit log")
	w := h.worker("LATCHKEY_CONNECT_MAX_BYTES=4096")
	secrets := map[string]bool{}
	note := func(c meshsim.Connection) {
		for _, a := range c.Accounts {
			secrets[a.AccessToken.Reveal()], secrets[a.RefreshToken.Reveal()] = true, true
		}
	}

	note(h.connectAged("alice", due, spec("coinbase"), "cb-1"))
	h.event(events.TokenRefreshed, "alice")
	secrets[h.get(events.TokenRequest{UserID: "alice"}).AccessTokens[0].AccessToken.Reveal()] = true
	shared := h.issue("kraken", "s1", "s2")
	note(shared)
	h.publishConnected("bob", shared, time.Time{})
	h.event(events.TokenStored, "bob")
	h.disconnect("bob", "", "s1")
	h.nth(events.TokenStored, "bob", 2)
	note(h.connectAged("bob", over, spec("old"), "x", meshsim.MFARequired()))
	h.event(events.TokenExpired, "bob")
	h.get(events.TokenRequest{UserID: "bob"})
	h.disconnect("alice", "", "")
	h.event(events.TokenRevoked, "alice")
	for user, body := range map[string]string{"nobody": `{"userId":"nobody"}`, "carol": `{"userId":"alice"}`, "dave": `{`} {
		msg, err := h.nc.Request(h.subjects.TokenGet(user), []byte(body), patience)
		require.NoError(t, err)
		require.NotEmpty(t, msg.Header.Get("Nats-Service-Error"))
	}
	big := h.issueSpec(meshsim.ConnectSpec{BrokerType: "coinbase", LogoBytes: 8 << 10}, "big")
	note(big)
	h.publishConnected("erin", big, time.Time{})
	h.deadLetters(1)
	letter := o.letters()[0].ID
	w.stop()
	o.ok("deadletters", "replay", letter)
	w = h.worker()
	h.event(events.TokenStored, "erin")
	h.publish(h.subjects.Connected(), `{`)
	h.deadLetters(1)
	dropped := o.letters()[0].ID
	o.ok("deadletters", "drop", "--yes", dropped)
	w.stop()

	require.Equal(t, []string{
		"sealed connect coinbase v1 cb-1", "opened refresh coinbase v1 cb-1", "sealed refresh coinbase v2 cb-1",
		"handed_out ok coinbase v2 cb-1", "erased disconnected coinbase v2 cb-1",
	}, shortly(o.audited("--user", "alice")))
	require.Equal(t, []string{
		"sealed connect kraken v1 s1,s2", "erased disconnected kraken v1 s1", "sealed trim kraken v2 s2",
		"sealed connect old v1 x", "opened refresh old v1 x",
	}, shortly(o.audited("--user", "bob"))[:5])
	handed := o.audited("--user", "bob", "--action", "handed_out")
	require.Len(t, handed, 1)
	require.Contains(t, shortly(handed)[0], "kraken v2 s2")
	require.Contains(t, shortly(handed)[0], "old v2 x expired") // with its interim access token
	require.Equal(t, &audit.Caller{Inbox: "_INBOX"}, handed[0].Caller)
	require.Equal(t, h.grants("bob")[0].UserID, handed[0].User)
	require.NotEmpty(t, handed[0].Grants[0].ID)
	require.Equal(t, []string{"refused unknown_user"}, shortly(o.audited("-u", "nobody")))
	require.Equal(t, []string{"refused forbidden"}, shortly(o.audited("-u", "carol")))
	require.Equal(t, []string{"refused bad_request"}, shortly(o.audited("-u", "dave")))
	byCommand := map[string]string{}
	for _, e := range o.audited() {
		if e.DeadLetter != "" {
			byCommand[e.DeadLetter] = string(e.Action) + " " + e.Outcome
			require.True(t, strings.HasPrefix(e.Worker, "cli-"), e.Worker)
		}
	}
	require.Equal(t, map[string]string{letter: "opened replay", dropped: "erased drop"}, byCommand)
	require.Len(t, o.audited("--action", "begin"), 4)
	require.Len(t, o.audited("--action", "end"), 4)
	require.Empty(t, o.audited("--since", "0s"))
	require.NotEmpty(t, o.audited("--since", "2026-01-01T00:00:00Z"))
	require.Regexp(t, `(?m)^\S+Z +handed_out +ok +alice +_INBOX +coinbase \S+ v2 cb-1$`, o.ok("audit", "list"))

	require.Regexp(t, `in 4 chains, from \S+ to \S+: 0 faults, 1 notes`, o.ok("audit", "verify"))
	require.Contains(t, o.ok("audit", "verify"), "MongoDB knows nothing of this chain", "dropping reaches NATS only")
	require.Len(t, strings.Split(strings.TrimSpace(o.ok("audit", "heads")), "\n"), 3)
	stream, err := h.js.Stream(h.ctx, h.subjects.AuditStream())
	require.NoError(t, err)
	require.Error(t, stream.DeleteMsg(h.ctx, 2), "what lies there leaves by age only")
	require.Error(t, stream.Purge(h.ctx))

	requireNoSecret(t, maps.Keys(secrets), map[string]string{"command line": o.shown.String()})
	delete(secrets, "")
	require.Greater(t, len(secrets), 8)

	// Somebody removes the chain of a worker from the one place or the other.
	heads := h.mongo().Database(h.database).Collection("audit_heads")
	_, err = heads.InsertOne(h.ctx, audit.Head{Chain: "another", Number: 7, Hash: "x", Sequence: 1, Begun: time.Now(), At: time.Now(), PurgeAt: time.Now().Add(10000 * time.Hour)})
	require.NoError(t, err)
	code, stdout, stderr := o.run("audit", "verify")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stdout, "FAULT at 1 of "+h.subjects.AuditStream()+" in another: the chain is missing: MongoDB knows that it had 7 messages")
	require.Contains(t, stderr, "not as it was written")
	code, stdout, _ = o.run("audit", "verify", "-o", "json")
	require.Equal(t, cli.ExitFailed, code)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	var report audit.Report
	require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &report))
	require.Equal(t, 1, report.Faults)
}

func TestHandOutsDependOnTheAuditLogAsConfigured(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	remove := func() {
		if err := h.js.DeleteStream(h.ctx, h.subjects.AuditStream()); !errors.Is(err, jetstream.ErrStreamNotFound) {
			require.NoError(t, err)
		}
	}
	w := h.worker("LATCHKEY_AUDIT_TIMEOUT=200ms", "LATCHKEY_RECONCILE_INTERVAL=1h")
	c := h.connectAged("u", fresh, spec("coinbase"), "a")
	h.event(events.TokenStored, "u")
	h.get(events.TokenRequest{UserID: "u"})

	var body []byte
	h.eventually(func() bool { // the first pass of the reconciler may still make the stream again
		remove()
		var code string
		_, code, body = h.ask(events.TokenRequest{UserID: "u"})
		return code == events.CodeBusy
	}, "tokens are handed out without a record")
	require.Contains(t, string(body), "audit log")
	require.NotContains(t, string(body), c.Accounts[0].AccessToken.Reveal())
	h.eventually(func() bool { return w.counter("latchkey_token_requests_total", "code", events.CodeBusy) > 0 }, "it is counted")
	// Nothing else is held up.
	h.connectAged("v", due, spec("kraken"), "b")
	h.event(events.TokenRefreshed, "v")
	h.disconnect("v", "", "")
	h.event(events.TokenRevoked, "v")
	h.eventually(func() bool { return w.metric("latchkey_audit_failures_total") > 0 }, "no failure is counted")

	// Another worker makes the stream again when it starts, and when it reconciles.
	second := h.worker()
	h.eventually(func() bool { _, code, _ := h.ask(events.TokenRequest{UserID: "u"}); return code == "" }, "it never heals")
	o := &onCall{harness: h}
	h.eventually(func() bool { return len(o.audited("-u", "v")) == 4 }, "what was done meanwhile is not written")
	remove()
	h.eventually(func() bool {
		_, err := h.js.Stream(h.ctx, h.subjects.AuditStream())
		return err == nil
	}, "the stream is not made again")
	second.stop()
	w.stop()
	code, stdout, _ := o.run("audit", "verify")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stdout, "those before are missing", "a stream that was removed is missed")

	w = h.worker("LATCHKEY_AUDIT_MODE=best_effort", "LATCHKEY_RECONCILE_INTERVAL=1h")
	h.eventually(func() bool {
		remove()
		h.get(events.TokenRequest{UserID: "u"})
		return w.metric("latchkey_audit_failures_total") > 0
	}, "no failure is counted")
	w.stop() // cleanly, though the log has no end
	require.Contains(t, h.logs.String(), "audit records are lost")

	remove()
	w = h.worker("LATCHKEY_AUDIT_MODE=off")
	h.get(events.TokenRequest{UserID: "u"})
	_, err := h.js.Stream(h.ctx, h.subjects.AuditStream())
	require.Error(t, err, "nobody wants the stream")
	w.stop()
}

// killedProcess tells TestWorkerProcess that it is the one to be killed.
const killedProcess = "LATCHKEY_TEST_WORKER_PROCESS"

func TestWorkerProcess(t *testing.T) {
	if os.Getenv(killedProcess) == "" {
		t.Skip("is a process that other tests start")
	}
	cfg, err := config.Load("", os.Environ())
	require.NoError(t, err)
	require.NoError(t, worker.Run(context.Background(), cfg, worker.Options{Log: zap.NewNop(), Metrics: prometheus.NewRegistry()}))
}

func TestTheChainOfAKilledWorkerVerifies(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	cfg, err := h.stack.Config(h.settings()...)
	require.NoError(t, err)
	require.Equal(t, config.AuditRequired, cfg.Audit.Mode)
	cmd := exec.Command(os.Args[0], "-test.run=^TestWorkerProcess$")
	cmd.Env = append(append(os.Environ(), h.stack.Environ()...), append(h.settings(), killedProcess+"=1")...)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	h.eventually(func() bool {
		_, err := h.js.Stream(h.ctx, h.subjects.IntegrationStream())
		return err == nil
	}, "it does not start")
	h.connectAged("u", fresh, spec("coinbase"), "a")
	h.event(events.TokenStored, "u")
	h.eventually(func() bool { _, code, _ := h.tryAsk("u"); return code == "" }, "it does not answer")
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()

	o := &onCall{harness: h}
	require.NotEmpty(t, o.audited("--action", "handed_out"), "what was handed out was recorded before")
	require.Contains(t, o.ok("audit", "verify"), "note  ")
	require.Contains(t, o.ok("audit", "verify"), "the chain has no end: its worker still runs, or was killed")
}

// tryAsk is ask where nobody may answer yet.
func (h *harness) tryAsk(user string) (reply events.TokenReply, code string, body []byte) {
	if _, err := h.nc.Request(h.subjects.TokenGet(user), []byte(`{}`), time.Second); err != nil {
		return reply, "nobody", nil
	}
	return h.ask(events.TokenRequest{UserID: user})
}
