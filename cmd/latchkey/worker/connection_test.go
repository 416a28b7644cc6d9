package worker_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// user is how a server knows a client that may do everything.
func users(all ...*server.User) func(*server.Options) {
	return func(o *server.Options) { o.Users = all }
}

func nkeyUsers(public string) func(*server.Options) {
	return func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} }
}

// A server that refuses a client, in whichever way and however often, may take it
// again later.
func TestAConnectionOutlastsRefusals(t *testing.T) {
	t.Parallel()
	pair, err := nkeys.CreateUser()
	require.NoError(t, err)
	seed, err := pair.Seed()
	require.NoError(t, err)
	public, err := pair.PublicKey()
	require.NoError(t, err)
	other, err := nkeys.CreateUser()
	require.NoError(t, err)
	otherPublic, err := other.PublicKey()
	require.NoError(t, err)

	cert, key, _ := selfSigned(t)
	certificate, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)

	for name, c := range map[string]struct {
		client          config.NATS
		taken, refusing func(*server.Options)
		restart         bool // the options can't be reloaded
	}{
		"the password has changed": {
			config.NATS{Username: "u", Password: secret.New("old")},
			users(&server.User{Username: "u", Password: "old"}), users(&server.User{Username: "u", Password: "new"}), false,
		},
		"the user is gone": {
			config.NATS{Username: "u", Password: secret.New("p")},
			users(&server.User{Username: "u", Password: "p"}), users(&server.User{Username: "v", Password: "p"}), false,
		},
		"the token has changed": {
			config.NATS{Token: secret.New("old")},
			func(o *server.Options) { o.Authorization = "old" }, func(o *server.Options) { o.Authorization = "new" }, false,
		},
		"the key is gone": {
			config.NATS{NKeySeed: secret.New(string(seed))}, nkeyUsers(public), nkeyUsers(otherPublic), false,
		},
		"credentials are asked for": {
			config.NATS{}, func(*server.Options) {}, func(o *server.Options) { o.Authorization = "x" }, false,
		},
		"no more connections": {
			config.NATS{}, func(*server.Options) {}, func(o *server.Options) { o.MaxConn = -1 }, true,
		},
		"TLS is asked for": {
			config.NATS{}, func(*server.Options) {}, func(o *server.Options) {
				o.TLSConfig, o.TLSTimeout = &tls.Config{Certificates: []tls.Certificate{certificate}}, 1
			}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var configure atomic.Pointer[func(*server.Options)]
			configure.Store(&c.taken)
			broker := enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) { (*configure.Load())(o) }}).Embedded()
			change := func(to func(*server.Options)) {
				t.Helper()
				configure.Store(&to)
				if c.restart {
					require.NoError(t, broker.Restart())
				} else {
					require.NoError(t, broker.Reload())
				}
			}
			var closed atomic.Bool
			c.client.URL, c.client.ConnectTimeout, c.client.InboxPrefix = broker.URL(), patience, "_INBOX"
			refused := make(chan error, 1000)
			nc, err := worker.Connect(c.client, "test", zap.NewNop(), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0),
				nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { refused <- err }), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }),
				nats.ClosedHandler(func(*nats.Conn) { closed.Store(true) }))
			require.NoError(t, err)
			t.Cleanup(nc.Close)

			change(c.refusing)
			before := nc.Stats().Reconnects
			require.Eventually(t, func() bool { return nc.Stats().Reconnects >= before+5 || closed.Load() }, patience, 10*time.Millisecond, "nothing is tried")
			require.False(t, closed.Load(), "the connection is closed for good: %v", nc.LastError())
			require.False(t, nc.IsConnected())

			change(c.taken)
			require.Eventually(t, func() bool { return nc.IsConnected() && nc.Flush() == nil }, patience, 10*time.Millisecond)
			require.False(t, closed.Load())
		})
	}
}

// Credentials that were replaced in their file are used at the next attempt, and
// a file that can't be read for a moment is no end.
func TestCredentialsAreReadAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	for key, c := range map[string]struct {
		client  config.NATS
		options func(text string) func(*server.Options)
	}{
		"PASSWORD": {config.NATS{Username: "u", Password: secret.New("first")}, func(text string) func(*server.Options) {
			return users(&server.User{Username: "u", Password: text})
		}},
		"TOKEN": {config.NATS{Token: secret.New("first")}, func(text string) func(*server.Options) {
			return func(o *server.Options) { o.Authorization = text }
		}},
	} {
		t.Run(key, func(t *testing.T) {
			t.Setenv("LATCHKEY_NATS_"+key+"_FILE", path)
			require.NoError(t, os.WriteFile(path, []byte("first\n"), 0o600))
			var text atomic.Pointer[string]
			text.Store(new("first"))
			broker := enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) { c.options(*text.Load())(o) }}).Embedded()
			core, logs := observer.New(zap.WarnLevel)
			c.client.URL, c.client.ConnectTimeout, c.client.InboxPrefix = broker.URL(), patience, "_INBOX"
			nc, err := worker.Connect(c.client, "test", zap.New(core), nats.ReconnectWait(20*time.Millisecond))
			require.NoError(t, err)
			t.Cleanup(nc.Close)

			require.NoError(t, os.Remove(path))
			text.Store(new("second"))
			require.NoError(t, broker.Reload())
			require.Eventually(t, func() bool { return logs.FilterMessageSnippet("can't be read from its file").Len() > 0 }, patience, 10*time.Millisecond)
			require.NoError(t, os.WriteFile(path, []byte("second\n"), 0o600))
			require.Eventually(t, func() bool { return nc.IsConnected() && nc.Flush() == nil }, patience, 10*time.Millisecond)
			require.NotContains(t, fmt.Sprint(logs.All()), path, "the path may be the secret itself")
		})
	}
}

// said are what a server may say before it breaks a connection off, or goes on.
var said = map[string]struct{ ends bool }{
	"-ERR 'Stale Connection'":                            {false},
	"-ERR 'Authorization Violation'":                     {false},
	"-ERR 'User Authentication Expired'":                 {false},
	"-ERR 'User Authentication Revoked'":                 {false},
	"-ERR 'Account Authentication Expired'":              {false},
	"-ERR 'maximum connections exceeded'":                {false},
	"-ERR 'maximum account active connections exceeded'": {false},
	"-ERR 'Unknown Protocol Operation'":                  {false},
	"-ERR 'Permissions Violation for Publish to \"x\"'":  {false},
	"-ERR 'maximum subscriptions exceeded'":              {false},
	"no such operation":                                  {false},
	"MSG broken":                                         {false},
	"-ERR 'Maximum Payload Violation'":                   {true},
	"-ERR 'Maximum Control Line Exceeded'":               {true},
	"-ERR 'Invalid Client Protocol'":                     {true},
	"-ERR 'Failed Account Registration'":                 {true},
	"-ERR 'Authentication Timeout'":                      {true},
	"-ERR 'Secure Connection - TLS Required'":            {true},
	"-ERR 'something new'":                               {true},
}

// A connection is either there again, or says that it is closed for good.
func TestAConnectionComesBackOrSaysSo(t *testing.T) {
	t.Parallel()
	broker := enginestest.NATSWith(t, engines.NATSOptions{}).Embedded()
	for line, c := range said {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			proxy, err := engines.StartNATSProxy(broker)
			require.NoError(t, err)
			t.Cleanup(proxy.Stop)
			closed := make(chan struct{})
			nc, err := worker.Connect(config.NATS{URL: proxy.URL(), InboxPrefix: "_INBOX", ConnectTimeout: patience}, "test", zap.NewNop(),
				nats.ReconnectWait(20*time.Millisecond), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
			require.NoError(t, err)
			t.Cleanup(nc.Close)
			require.NoError(t, nc.Flush())
			for range 3 { // what is said for the first time may mean less
				if nc.IsClosed() {
					break
				}
				proxy.Say(line)
				require.Eventually(t, func() bool { return nc.IsClosed() || nc.IsConnected() && nc.Flush() == nil }, patience, 10*time.Millisecond)
			}
			if c.ends {
				<-closed
				require.ErrorIs(t, nc.Flush(), nats.ErrConnectionClosed)
				return
			}
			require.False(t, nc.IsClosed(), "closed for good: %v", nc.LastError())
		})
	}
}

// A worker whose connection is closed for good finishes what is under way, says
// meanwhile that it is not healthy, and ends with an error. It does not live on.
func TestAWorkerWithoutAConnectionEnds(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"coinbase": {AccessLifetime: life, RefreshLifetime: 24 * life}})
	if h.stack.NATS == nil {
		t.Skip("needs an embedded NATS")
	}
	proxy, err := engines.StartNATSProxy(h.stack.NATS)
	require.NoError(t, err)
	t.Cleanup(proxy.Stop)
	w := h.worker("LATCHKEY_NATS_URL="+proxy.URL(), "LATCHKEY_ADMIN_LISTEN=127.0.0.1:0")
	healthz := "http://" + h.adminAddress() + "/healthz"
	status, _ := fetch(t, healthz)
	require.Equal(t, http.StatusOK, status)

	h.connectAged("u", due, spec("coinbase"), "a", meshsim.Delay(3*time.Second, 3*time.Second))
	h.eventually(func() bool { return len(h.underWay("a")) > 0 }, "no refresh")
	proxy.Say("-ERR 'something new'")
	h.eventually(func() bool { status, _ := fetch(t, healthz); return status == http.StatusServiceUnavailable }, "it looks healthy")
	ended := w.ends()
	require.ErrorContains(t, ended, "closed for good")
	require.ErrorContains(t, ended, "something new")
	require.EqualValues(t, 2, h.grants("u")[0].Version, "the answer that was under way is kept")
	h.worker()
	h.event(events.TokenRefreshed, "u")
}

// fetch returns the status and body of a page; 0 where nobody answers.
func fetch(t *testing.T, url string) (status int, body string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	content, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(content)
}

// A future of a message published without waiting resolves, whatever becomes of
// the acknowledgement.
func TestEveryFutureResolves(t *testing.T) {
	t.Parallel()
	resolve := func(t *testing.T, all []jetstream.PubAckFuture) (failed int) {
		t.Helper()
		for _, future := range all {
			select {
			case <-future.Ok():
			case <-future.Err(): //nolint:errcheck // that it failed is what counts
				failed++
			case <-time.After(patience):
				t.Fatal("a future does not resolve")
			}
		}
		return failed
	}
	publish := func(t *testing.T, js jetstream.JetStream, n int) (all []jetstream.PubAckFuture) {
		t.Helper()
		for range n {
			if future, err := js.PublishMsgAsync(&nats.Msg{Subject: "s", Data: []byte("x")}); err == nil {
				all = append(all, future)
			}
		}
		return all
	}
	stream := jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Storage: jetstream.MemoryStorage}

	t.Run("one is swallowed", func(t *testing.T) {
		t.Parallel()
		proxy, err := engines.StartNATSProxy(enginestest.NATSWith(t, engines.NATSOptions{}).Embedded())
		require.NoError(t, err)
		t.Cleanup(proxy.Stop)
		js := jetStreamOn(t, proxy.URL())
		_, err = js.CreateStream(t.Context(), stream)
		require.NoError(t, err)
		var once sync.Once
		proxy.Swallow(func(asked, _ string) (swallow bool) {
			if asked == "s" {
				once.Do(func() { swallow = true })
			}
			return swallow
		})
		require.Equal(t, 1, resolve(t, publish(t, js, 10)))
		require.Zero(t, resolve(t, publish(t, js, 10)))
	})

	t.Run("leaders step down", func(t *testing.T) {
		t.Parallel()
		cluster, err := engines.StartCluster(3, engines.NATSOptions{Dir: t.TempDir()})
		require.NoError(t, err)
		t.Cleanup(cluster.Stop)
		js := jetStreamOn(t, cluster.URL())
		replicated := stream
		replicated.Replicas = 3
		_, err = js.CreateStream(t.Context(), replicated)
		require.NoError(t, err)
		for range 6 {
			all := publish(t, js, 200)
			_, _ = js.Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN.S", nil, patience) // none may lead just now
			resolve(t, append(all, publish(t, js, 200)...))
		}
		require.Eventually(t, func() bool { return resolve(t, publish(t, js, 10)) == 0 }, patience, 100*time.Millisecond)
	})
}

func jetStreamOn(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	nc, err := worker.Connect(config.NATS{URL: url, InboxPrefix: "_INBOX", ConnectTimeout: patience}, "test", zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := worker.JetStream(nc)
	require.NoError(t, err)
	return js
}
