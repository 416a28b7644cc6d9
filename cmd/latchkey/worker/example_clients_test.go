package worker_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/npmtest"
	"github.com/latchkey/latchkey/events"
)

const examples = "../../../docs/examples"

// program is a running example.
type program struct {
	h   *harness
	cmd *exec.Cmd
	out *enginestest.Text
}

// runExample runs a program until the test ends, where it must end cleanly at
// an interrupt.
func (h *harness) runExample(cmd *exec.Cmd) *program {
	h.t.Helper()
	cfg, err := h.stack.Config()
	require.NoError(h.t, err)
	p := &program{h, cmd, &enginestest.Text{}}
	cmd.Env = append(os.Environ(), "NATS_URL="+cfg.NATS.URL, "LATCHKEY_PREFIX="+h.subjects.Prefix, "LISTEN=127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = p.out, p.out
	require.NoError(h.t, cmd.Start())
	h.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			h.t.Errorf("%s: %v\n%s", cmd, err, p.out)
		}
	})
	return p
}

// nodeExample installs a Node example in a folder of its own, beside a copy of the client
// for Node.js, and returns the folder.
func (h *harness) nodeExample(name string) (dir string) {
	h.t.Helper()
	npm := npmtest.New(h.t)
	top := h.t.TempDir()
	for _, part := range []string{"events/node/lib", "events/node/types", "docs/examples/" + name} {
		to := filepath.Join(top, part)
		require.NoError(h.t, os.CopyFS(to, os.DirFS(filepath.Join("../../..", part))))
		require.NoError(h.t, os.RemoveAll(filepath.Join(to, "node_modules"))) // what somebody tried out there
	}
	manifest, err := os.ReadFile("../../../events/node/package.json")
	require.NoError(h.t, err)
	require.NoError(h.t, os.WriteFile(filepath.Join(top, "events/node/package.json"), manifest, 0o600))
	dir = filepath.Join(top, "docs/examples", name)
	npm(dir, nil, "ci")
	return dir
}

// runNode installs a Node example and runs it.
func (h *harness) runNode(name string) *program {
	h.t.Helper()
	cmd := exec.CommandContext(h.ctx, "node", "index.js")
	cmd.Dir = h.nodeExample(name)
	return h.runExample(cmd)
}

// says waits until a program has printed what matches and returns the first
// group.
func (p *program) says(pattern string) string {
	p.h.t.Helper()
	re := regexp.MustCompile(pattern)
	var found []string
	p.h.eventually(func() bool {
		found = re.FindStringSubmatch(p.out.String())
		return found != nil
	}, "printed: "+pattern)
	return found[1]
}

// call makes a request to a backend as the page of a user.
func (h *harness) call(method, url, user, body string) (status int, answer []byte) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.ctx, method, url, bytes.NewReader([]byte(body)))
	require.NoError(h.t, err)
	req.Header.Set("X-Example-User", user)
	res, err := http.DefaultClient.Do(req)
	require.NoError(h.t, err)
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	require.NoError(h.t, err)
	return res.StatusCode, answer
}

// handed is what a page sends to a backend that has had a payload for some milliseconds.
func handed(payload string, age int) string {
	return fmt.Sprintf(`{"payload":%s,"ageMilliseconds":%d}`, payload, age)
}

// page gets the tokens of a user from a backend and checks them at Mesh.
func (h *harness) page(backend, user, account string) {
	h.t.Helper()
	status, answer := h.call("GET", backend+"/access-tokens", user, "")
	require.Equal(h.t, http.StatusOK, status, string(answer))
	reply, err := events.DecodeTokenReply(answer)
	require.NoError(h.t, err)
	require.Len(h.t, reply.AccessTokens, 1)
	require.Equal(h.t, account, reply.AccessTokens[0].AccountID)
	valid, why := h.stack.Mesh.AccessTokenState(reply.AccessTokens[0].AccessToken)
	require.True(h.t, valid, why)

	// A call with that token is refused.
	report, err := json.Marshal(map[string]any{"refused": []events.RefusedToken{reply.Expiries[0].Refused()}})
	require.NoError(h.t, err)
	status, answer = h.call("POST", backend+"/access-tokens", user, string(report))
	require.Equal(h.t, http.StatusOK, status, string(answer))
	again, err := events.DecodeTokenReply(answer)
	require.NoError(h.t, err)
	require.False(h.t, again.AccessTokens[0].AccessToken.Equal(reply.AccessTokens[0].AccessToken))
	require.Greater(h.t, again.Expiries[0].Version, reply.Expiries[0].Version)
	for _, junk := range []string{`{`, `{"refused":[{"grantId":""}]}`} {
		status, _ = h.call("POST", backend+"/access-tokens", user, junk)
		require.Equal(h.t, http.StatusBadRequest, status, junk)
	}
}

func TestExamplePrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program and installs Node packages: not in short mode")
	}
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"kraken": {AccessLifetime: 3 * time.Second, RefreshLifetime: life}})
	h.worker()
	dead := h.issue("kraken", "k")
	require.NoError(t, h.stack.Mesh.Script("k", meshsim.Killed("the user revoked access")))

	t.Run("go-backend", func(t *testing.T) {
		h := h.in(t)
		binary := filepath.Join(t.TempDir(), "go-backend")
		out, err := exec.CommandContext(h.ctx, "go", "build", "-o", binary, examples+"/go-backend").CombinedOutput()
		require.NoError(t, err, string(out))
		p := h.runExample(exec.CommandContext(h.ctx, binary))
		backend := p.says(`listening on (http://\S+)`)
		c := h.issue("coinbase", "a")
		heard, err := h.nc.SubscribeSync(h.subjects.Connected())
		require.NoError(t, err)
		require.NoError(t, h.nc.Flush())
		var first events.Connected
		for age := range 3 { // the page had no answer, and tries again
			status, answer := h.call("POST", backend+"/connected", "user.1", handed(c.Payload.Reveal(), age))
			require.Equal(t, http.StatusNoContent, status, string(answer))
			msg, err := heard.NextMsg(patience)
			require.NoError(t, err)
			in, err := events.DecodeConnected(msg.Data)
			require.NoError(t, err)
			if age == 0 {
				first = in
			}
			require.Equal(t, first.ConnectedAt, in.ConnectedAt, "a try is no newer connect")
		}
		require.NoError(t, heard.Unsubscribe())
		h.event(events.TokenStored, "user.1")
		h.page(backend, "user.1", "a")

		status, _ := h.call("POST", backend+"/connected", "gone", handed(dead.Payload.Reveal(), 0))
		require.Equal(t, http.StatusNoContent, status)
		h.event(events.TokenStored, "gone")
		h.ask(h.refusing(events.TokenRequest{UserID: "gone"})) // it is refused
		expired := h.event(events.TokenExpired, "gone")
		require.Equal(t, expired.ID, p.says(`event (\S+): user gone has to connect kraken again: rejected`))
		status, answer := h.call("GET", backend+"/access-tokens", "gone", "")
		require.Equal(t, http.StatusConflict, status)
		require.Equal(t, "expired\n", string(answer))

		for _, junk := range []string{handed(`{"nothing":1}`, 0), handed(c.Payload.Reveal(), -1), `{}`, `{`} {
			status, _ = h.call("POST", backend+"/connected", "user.1", junk)
			require.Equal(t, http.StatusBadRequest, status, junk)
		}
		status, _ = h.call("GET", backend+"/access-tokens", "", "")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = h.call("POST", backend+"/disconnected", "user.1", "")
		require.Equal(t, http.StatusNoContent, status)
		h.event(events.TokenRevoked, "user.1")
		require.NotContains(t, p.out.String(), c.Accounts[0].AccessToken.Reveal())
	})
	t.Run("node-subscriber", func(t *testing.T) {
		h := h.in(t)
		p := h.runNode("node-subscriber")
		var said map[string]string
		require.NoError(t, json.Unmarshal([]byte(p.says(`(?m)^(\{.*"user":"gone".*\})$`)), &said))
		expired := h.event(events.TokenExpired, "gone")
		require.Equal(t, map[string]string{"event": expired.ID, "user": "gone", "broker": "kraken", "reason": "rejected"}, said)
		stream, err := h.js.Stream(h.ctx, h.subjects.LifecycleStream())
		require.NoError(t, err)
		consumer, err := stream.Consumer(h.ctx, "example-expired")
		require.NoError(t, err)
		h.eventually(func() bool {
			info, err := consumer.Info(h.ctx)
			return err == nil && info.NumAckPending == 0 && info.NumPending == 0
		}, "acknowledged")
	})
	t.Run("node-tokens", func(t *testing.T) {
		h := h.in(t)
		p := h.runNode("node-tokens")
		backend := p.says(`listening on (http://\S+)`)
		c := h.connectAged("user.2@example.com", fresh, spec("coinbase"), "b")
		h.event(events.TokenStored, "user.2@example.com")
		h.page(backend, "user.2@example.com", "b")
		status, answer := h.call("GET", backend+"/access-tokens", "gone", "")
		require.Equal(t, http.StatusConflict, status)
		require.JSONEq(t, `{"code":"expired"}`, string(answer))
		status, _ = h.call("GET", backend+"/access-tokens", "", "")
		require.Equal(t, http.StatusUnauthorized, status)
		require.NotContains(t, p.out.String(), c.Accounts[0].AccessToken.Reveal())
	})
}
