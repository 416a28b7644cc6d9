package client_test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
)

// documented returns what docs/subscribing.md permits a subscriber.
func documented(t *testing.T) *server.Permissions {
	t.Helper()
	page, err := os.ReadFile("../../docs/subscribing.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(page), "\n## Permissions\n")
	require.True(t, found)
	subjects := func(what string) []string {
		list := regexp.MustCompile(`(?s)\n` + what + `: +\[(.*?)\]`).FindStringSubmatch(section)
		require.NotNil(t, list, what)
		var out []string
		for _, m := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(list[1], -1) {
			out = append(out, m[1])
		}
		return out
	}
	return &server.Permissions{Publish: &server.SubjectPermission{Allow: subjects("publish")}, Subscribe: &server.SubjectPermission{Allow: subjects("subscribe")}}
}

// The documented permissions suffice for a subscription, also where its consumer is lost, and
// leave another's alone.
func TestSubscribersPermissions(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
		Users: []*server.User{{Username: "all", Password: "x"}, {Username: "subscriber", Password: "x", Permissions: documented(t)}},
	})
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	require.True(t, s.ReadyForConnections(patience))
	connect := func(user string, options ...nats.Option) (*nats.Conn, jetstream.JetStream) {
		nc, err := nats.Connect(s.ClientURL(), append(options, nats.UserInfo(user, "x"))...)
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		require.NoError(t, err)
		return nc, js
	}
	b := &bench{t: t, ctx: t.Context()}
	b.nc, b.js = connect("all")
	stream := b.lifecycle()
	other, err := stream.CreateConsumer(b.ctx, jetstream.ConsumerConfig{Durable: "other", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)

	refused := make(chan error, 100)
	mine := nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err })
	nc, js := connect("subscriber", nats.CustomInboxPrefix("_INBOX_notifier"), mine)
	c, err := client.New(nc)
	require.NoError(t, err)
	sub := b.subscribe(c, client.Subscription{Durable: "notifications", Kinds: []string{events.TokenExpired}})
	b.tell("1", events.TokenExpired, "alice")
	<-sub.heard
	require.NoError(t, stream.DeleteConsumer(b.ctx, "notifications"))
	b.tell("2", events.TokenExpired, "alice")
	sub.say <- nil
	sub.hearsUntil("2")
	require.NoError(t, sub.ends())
	require.NoError(t, nc.Flush())
	require.Empty(t, refused)

	for what, try := range map[string]func() error{
		"delete": func() error { return js.DeleteConsumer(short(t), b.subjects.LifecycleStream(), "other") },
		"change": func() error {
			_, err := js.UpdateConsumer(short(t), b.subjects.LifecycleStream(), jetstream.ConsumerConfig{Durable: "other", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Hour})
			return err
		},
		"delete my own": func() error { return js.DeleteConsumer(short(t), b.subjects.LifecycleStream(), "notifications") },
	} {
		require.Error(t, try(), what)
		require.ErrorIs(t, <-refused, nats.ErrPermissionViolation, what)
	}
	info, err := other.Info(b.ctx)
	require.NoError(t, err)
	require.Equal(t, 30*time.Second, info.Config.AckWait)
}

// short is a context for what gets no answer.
func short(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
