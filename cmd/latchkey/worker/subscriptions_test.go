package worker_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// A server that takes a subscription away, because its user may not have it
// for a while, does not give it back by itself.
func TestASubscriptionOutlastsRefusals(t *testing.T) {
	t.Parallel()
	allowed := func(subjects ...string) func(*server.Options) {
		return users(&server.User{Username: "u", Password: "p", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Allow: subjects},
		}})
	}
	var configure atomic.Pointer[func(*server.Options)]
	configure.Store(new(allowed("s", "q", "_INBOX.>")))
	broker := enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) { (*configure.Load())(o) }}).Embedded()
	nc, err := worker.Connect(config.NATS{URL: broker.URL(), Username: "u", Password: secret.New("p"), InboxPrefix: "_INBOX", ConnectTimeout: patience}, "test", zap.NewNop(),
		nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	answer := func(m *nats.Msg) { _ = m.Respond(nil) }
	_, err = nc.Subscribe("s", answer)
	require.NoError(t, err)
	_, err = nc.QueueSubscribe("q", "group", answer)
	require.NoError(t, err)
	works := func(subject string) bool {
		_, err := nc.Request(subject, nil, time.Second)
		return err == nil
	}
	require.True(t, works("s") && works("q"))

	all := []string{"s", "q", "_INBOX.>"}
	take := func(how func() error, left ...string) {
		t.Helper()
		configure.Store(new(allowed(left...)))
		require.NoError(t, how())
		require.Eventually(t, func() bool { return !works("s") || !works("q") }, patience, 10*time.Millisecond)
		configure.Store(new(allowed(all...)))
		require.NoError(t, broker.Reload())
		require.Eventually(t, func() bool { return works("s") && works("q") }, patience, 10*time.Millisecond, "not after it had only %v", left)
	}
	take(broker.Reload, "q", "_INBOX.>")
	take(broker.Reload, "s", "_INBOX.>")
	take(broker.Reload, "s", "q")
	take(broker.Restart, "s", "_INBOX.>")
}

// logsOfOther counts the log lines about a subject that comes last.
func logsOfOther(logged *observer.ObservedLogs) (n int) {
	for _, e := range logged.All() {
		if strings.Contains(fmt.Sprint(e.ContextMap()), `to "other"`) {
			n++
		}
	}
	return n
}

// A log names no users, whom the subjects of changes end in, and has no line for each.
func TestRefusalsNameNoUser(t *testing.T) {
	t.Parallel()
	for _, subjects := range []events.Subjects{{}, {Prefix: "eu"}} {
		core, logged := observer.New(zap.ErrorLevel)
		broker := enginestest.NATSWith(t, engines.NATSOptions{Configure: users(&server.User{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{">"}}, Subscribe: &server.SubjectPermission{Deny: []string{">"}},
		}})})
		broker.Embedded() // or skip
		nc, err := worker.Connect(config.NATS{URL: broker.URL(), Username: "u", Password: secret.New("p"), InboxPrefix: "_INBOX", ConnectTimeout: patience, Prefix: subjects.Prefix}, "test", zap.New(core))
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		for _, user := range []string{"alice@example.com", "alice", "alicent"} {
			_, err = nc.ChanSubscribe(subjects.Changed(user), make(chan *nats.Msg))
			require.NoError(t, err)
			require.NoError(t, nc.Publish(subjects.Changed(user), nil))
		}
		_, err = nc.SubscribeSync("other")
		require.NoError(t, err)
		require.Eventually(t, func() bool { return logsOfOther(logged) > 0 }, patience, 10*time.Millisecond)
		require.Equal(t, 3, logged.Len())
		for _, e := range logged.All()[:2] {
			said := fmt.Sprint(e.ContextMap())
			require.Contains(t, said, `to "`+subjects.Changed("")+`*"`)
			require.NotContains(t, said, "alice")
		}
		require.Contains(t, fmt.Sprint(logged.All()[2].ContextMap()), `to "other"`)
	}
}

// NATS refuses each subscription that is one too many.
func TestALimitOfSubscriptionsIsLoggedOnce(t *testing.T) {
	t.Parallel()
	core, logged := observer.New(zap.ErrorLevel)
	broker := enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) {
		o.MaxSubs = 1
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"other"}}}}}
	}})
	broker.Embedded() // or skip
	nc, err := worker.Connect(config.NATS{URL: broker.URL(), Username: "u", Password: secret.New("p"), InboxPrefix: "_INBOX", ConnectTimeout: patience}, "test", zap.New(core))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	for n := range 10 {
		_, err = nc.SubscribeSync(fmt.Sprint("s.", n))
		require.NoError(t, err)
	}
	require.NoError(t, nc.Publish("other", nil))
	require.Eventually(t, func() bool { return logsOfOther(logged) > 0 }, patience, 10*time.Millisecond)
	require.Equal(t, 2, logged.Len())
}
