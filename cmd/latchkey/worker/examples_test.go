package worker_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// run runs a command of an example against the installation.
func (h *harness) run(dir, stdin string, args ...string) (stdout string) {
	h.t.Helper()
	cmd := exec.CommandContext(h.ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "NATS_URL="+h.nc.ConnectedUrl(), "LATCHKEY_PREFIX="+h.subjects.Prefix)
	out, err := cmd.CombinedOutput()
	require.NoError(h.t, err, "%s:\n%s", strings.Join(args, " "), out)
	return string(out)
}

// examplesOnly starts an installation that takes sealed connects only.
func examplesOnly(t *testing.T) *harness {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and installs examples: not in short mode")
	}
	h := start(t, nil)
	h.worker("LATCHKEY_CONNECT_REQUIRE_SEALED=true")
	return h
}

func TestGoExample(t *testing.T) {
	t.Parallel()
	h := examplesOnly(t)
	c := h.issue("coinbase", "a")
	out := h.run(examples, c.Payload.Reveal(), "go", "run", "./go-publisher", "go user", time.Now().UTC().Format(time.RFC3339))
	require.Contains(t, out, "stored")
	h.event(events.TokenStored, "go user")
	require.Equal(t, c.Accounts[0].AccessToken.Reveal(), h.get(events.TokenRequest{UserID: "go user"}).AccessTokens[0].AccessToken.Reveal())
}

func TestNodeExample(t *testing.T) {
	t.Parallel()
	h := examplesOnly(t)
	dir := h.nodeExample("node-publisher")
	c := h.issue("coinbase", "a")
	token := c.Accounts[0].AccessToken.Reveal()
	at := time.Now().UTC().Format(time.RFC3339)
	out := h.run(dir, c.Payload.Reveal(), "node", "publish.js", "node user", at)
	require.Contains(t, out, "stored")
	h.event(events.TokenStored, "node user")
	require.Equal(t, token, h.get(events.TokenRequest{UserID: "node user"}).AccessTokens[0].AccessToken.Reveal())

	out = h.run(dir, "", "node", "tokens.js", "node user")
	require.Contains(t, out, "a at ")
	require.Contains(t, out, "a token of ")
	require.NotContains(t, out, token)

	// What the examples don't show: a disconnect, its event, a connect that changes nothing,
	// a refusal.
	out = h.run(dir, c.Payload.Reveal(), "node", "--input-type=module", "-e", nodeScript, at)
	require.Equal(t, "token.revoked disconnected\nolder\nunknown_user true\nunknown_user\n", out)
}

const nodeScript = `
import { text } from "node:stream/consumers";
import { Client } from "@latchkey/client";
import { connect } from "@nats-io/transport-node";

const userId = "node user", connectedAt = process.argv[1];
const nc = await connect({ servers: process.env.NATS_URL, inboxPrefix: "_INBOX_script" });
const latchkey = new Client(nc, { prefix: process.env.LATCHKEY_PREFIX, sealConnects: true });
await latchkey.publishDisconnected({ userId, everything: true, disconnectedAt: new Date() });
const stop = new AbortController();
await latchkey.subscribe({ durable: "script", kinds: ["token.revoked"], users: [userId] }, ({ type, data }) => {
  console.log(type, data.reason);
  stop.abort();
}, { signal: stop.signal });

const enough = new AbortController();
const heard = latchkey.rejections([userId], ({ data }) => {
  console.log(data.reason);
  enough.abort();
}, { signal: enough.signal });
await nc.flush();
await latchkey.publishConnected({ userId, connectedAt, payload: await text(process.stdin) });
await heard;
await latchkey.tokens({ userId }).catch((err) => console.log(err.code, err.reconnect));
await latchkey.completeMFA({ userId, grantId: "g", code: "246810" }).catch((err) => console.log(err.code));
await nc.close();
`
