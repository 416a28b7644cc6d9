package worker_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
)

// TestCrashesShowNoToken has worker processes with live tokens in their hands
// dump their goroutines and panic, and searches what they leave.
func TestCrashesShowNoToken(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	exe := buildSandbox(t)
	secrets := map[string]bool{stack.ClientSecret: true, stack.SecretAccessKey: true}

	for _, c := range []struct {
		name, traceback string
		crash           func(p *victim)
		shows           string
	}{
		{"goroutines of the program", "all", (*victim).quit, "SIGQUIT: quit"},
		{"goroutines of the runtime too", "system", (*victim).quit, "SIGQUIT: quit"},
		{"as for a core dump", "crash", (*victim).quit, "SIGQUIT: quit"},
		{"panics in handlers and a bare goroutine", "all", (*victim).panics, "panic: told to crash"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := h.in(t)
			p := h.victim(exe, "GOTRACEBACK="+c.traceback)
			p.loaded(secrets)
			c.crash(p)
			p.ended()
			left := p.output()
			require.Contains(t, left, c.shows)
			require.Contains(t, left, "refresher.(*Mesh)", "no refresh was under way")
			requireNoSecret(t, maps.Keys(secrets), map[string]string{"output of the crash": left})
			files, err := os.ReadDir(p.dir)
			require.NoError(t, err)
			require.Len(t, files, 1, "only what it wrote to standard error")
		})
	}
	t.Run("profiles", func(t *testing.T) {
		h := h.in(t)
		const token = "correct-horse-battery"
		p := h.victim(exe, "LATCHKEY_ADMIN_LISTEN=127.0.0.1:0", "LATCHKEY_ADMIN_PPROF=true", "LATCHKEY_ADMIN_TOKEN="+token)
		p.loaded(secrets)
		profiles := p.profiles(token)
		for name, profile := range profiles {
			require.Contains(t, profile, "latchkey/latchkey/", name)
		}
		require.Contains(t, profiles["goroutine?debug=2"], "refresher.(*Mesh)", "no refresh was under way")
		requireNoSecret(t, maps.Keys(secrets), profiles)
	})
	require.Greater(t, len(secrets), 15)
}

func buildSandbox(t *testing.T) (exe string) {
	t.Helper()
	exe = filepath.Join(t.TempDir(), "sandbox")
	out, err := exec.Command("go", "build", "-o", exe, "../../sandbox").CombinedOutput()
	require.NoError(t, err, string(out))
	return exe
}

// victim is a worker process that is going to crash, or to be stopped.
type victim struct {
	*harness
	cmd  *exec.Cmd
	dir  string // where it runs
	done chan struct{}
}

func (h *harness) victim(exe string, more ...string) *victim {
	h.t.Helper()
	return h.process(exe, "--crash-on-signal", more...)
}

func (h *harness) process(exe, flag string, more ...string) *victim {
	h.t.Helper()
	p := &victim{harness: h, dir: h.t.TempDir(), done: make(chan struct{})}
	log, err := os.Create(filepath.Join(p.dir, "stderr"))
	require.NoError(h.t, err)
	defer func() { _ = log.Close() }()
	p.cmd = exec.Command(exe, "worker", flag)
	p.cmd.Env = append(append(p.stack.Environ(), h.settings("LATCHKEY_RECONCILE_INTERVAL=1h", "LATCHKEY_MESSAGES_ACK_WAIT=1s", "LATCHKEY_AUDIT_MODE=off")...), more...)
	p.cmd.Dir, p.cmd.Stderr = p.dir, log
	require.NoError(h.t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // it ends by a signal or a panic
		close(p.done)
	}()
	h.t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
	})
	h.eventually(func() bool { return strings.Contains(p.output(), `"msg":"working"`) }, "the worker does not start")
	return p
}

func (p *victim) output() string {
	content, err := os.ReadFile(filepath.Join(p.dir, "stderr"))
	require.NoError(p.t, err)
	return string(content)
}

// loaded gives the process tokens to hold: stored ones that are asked for all
// the time, and refreshes whose answers don't come.
func (p *victim) loaded(secrets map[string]bool) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.ctx)
	var asking sync.WaitGroup
	p.t.Cleanup(asking.Wait)
	p.t.Cleanup(cancel)
	run := filepath.Base(p.dir) + strings.ReplaceAll(p.t.Name(), "/", "-")
	for i := range 3 {
		steady, hanging := fmt.Sprintf("steady-%s-%d", run, i), fmt.Sprintf("hanging-%s-%d", run, i)
		for _, c := range []meshsim.Connection{
			p.connectAged(steady, fresh, spec("steady"), steady),
			p.connectAged(hanging, due, spec("hanging"), hanging, meshsim.Delay(time.Minute, time.Minute)),
		} {
			secrets[c.Accounts[0].AccessToken.Reveal()], secrets[c.Accounts[0].RefreshToken.Reveal()] = true, true
		}
		p.event(events.TokenStored, steady)
		require.Len(p.t, p.get(events.TokenRequest{UserID: steady}).AccessTokens, 1)
		asking.Go(func() {
			for ctx.Err() == nil {
				body := fmt.Sprintf(`{"userId":%q}`, steady)
				_, _ = p.nc.RequestWithContext(ctx, p.subjects.TokenGet(steady), []byte(body)) // ends with the process
			}
		})
		p.eventually(func() bool { return len(p.underWay(hanging)) > 0 }, "no refresh is under way")
	}
}

func (p *victim) quit() { require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGQUIT)) }

// panics has handlers panic over messages with tokens, then the process.
func (p *victim) panics() {
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGUSR1))
	p.eventually(func() bool {
		p.publishConnected("panic", p.issue("coinbase", "panic"), time.Time{})
		return strings.Contains(p.output(), `"panic in a handler"`) && strings.Contains(p.output(), "panic in a handler of token requests")
	}, "nothing panics")
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGUSR2))
}

// profiles takes profiles of the process, and decompresses them.
func (p *victim) profiles(token string) map[string]string {
	p.t.Helper()
	all := map[string]string{}
	for _, name := range []string{"allocs", "goroutine?debug=2", "heap", "profile?seconds=1", "trace?seconds=1"} {
		q, err := http.NewRequestWithContext(p.ctx, http.MethodGet, "http://"+adminLine.FindStringSubmatch(p.output())[1]+"/debug/pprof/"+name, nil)
		require.NoError(p.t, err)
		q.SetBasicAuth("", token)
		res, err := http.DefaultClient.Do(q)
		require.NoError(p.t, err)
		profile, err := io.ReadAll(res.Body)
		require.NoError(p.t, errors.Join(err, res.Body.Close()))
		require.Equal(p.t, http.StatusOK, res.StatusCode, name)
		if packed, err := gzip.NewReader(bytes.NewReader(profile)); err == nil {
			profile, err = io.ReadAll(packed)
			require.NoError(p.t, err)
		}
		all[name] = string(profile)
	}
	return all
}

func (p *victim) ended() {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatal("the process goes on")
	}
}
