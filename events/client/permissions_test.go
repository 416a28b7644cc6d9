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

// newGuarded is a bench without a prefix, and a function that connects a subscriber with
// permissions, and returns what NATS refuses it.
func newGuarded(t *testing.T, permissions *server.Permissions) (*bench, func() (*nats.Conn, chan error)) {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
		Users: []*server.User{{Username: "all", Password: "x"}, {Username: "subscriber", Password: "x", Permissions: permissions}},
	})
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	require.True(t, s.ReadyForConnections(patience))
	connect := func(user string, options ...nats.Option) *nats.Conn {
		nc, err := nats.Connect(s.ClientURL(), append(options, nats.UserInfo(user, "x"))...)
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		return nc
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	b := &bench{t: t, ctx: ctx, nc: connect("all")}
	b.js, err = jetstream.New(b.nc)
	require.NoError(t, err)
	return b, func() (*nats.Conn, chan error) {
		refused := make(chan error, 100)
		mine := nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err })
		return connect("subscriber", nats.CustomInboxPrefix("_INBOX_notifier"), mine), refused
	}
}

// The documented permissions suffice for a subscription, also where its consumer is lost, and
// leave another's alone.
func TestSubscribersPermissions(t *testing.T) {
	t.Parallel()
	b, connect := newGuarded(t, documented(t))
	stream := b.lifecycle()
	other, err := stream.CreateConsumer(b.ctx, jetstream.ConsumerConfig{Durable: "other", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)

	nc, refused := connect()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
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

// Of each further stream a subscriber needs its consumer, and of the first also the number.
func TestSubscribersPermissionsOnSeveralStreams(t *testing.T) {
	t.Parallel()
	const first = "LATCHKEY_LIFECYCLE"
	permitted := func(streams ...string) *server.Permissions {
		p := documented(t)
		for _, subject := range p.Publish.Allow {
			for _, stream := range streams {
				if !strings.Contains(subject, "STREAM.INFO") {
					p.Publish.Allow = append(p.Publish.Allow, strings.Replace(subject, first, stream, 1))
				}
			}
		}
		return p
	}
	s := client.Subscription{Durable: "notifications", NewOnly: true}
	t.Run("suffice", func(t *testing.T) {
		t.Parallel()
		b, connect := newGuarded(t, permitted(first+"_1", first+"_2"))
		b.subjects.Partitions = 3
		b.lifecycle()
		nc, refused := connect()
		c, err := client.New(nc)
		require.NoError(t, err)
		sub := b.subscribe(c, s)
		b.has(2, "notifications")
		b.has(1, "notifications")
		for n := range 3 {
			b.tell("1", events.TokenExpired, b.user(n))
			sub.hears("1", nil)
		}
		require.NoError(t, sub.ends())
		require.NoError(t, nc.Flush())
		require.Empty(t, refused)
	})
	t.Run("are missing for one", func(t *testing.T) {
		t.Parallel()
		b, connect := newGuarded(t, permitted(first+"_1"))
		b.subjects.Partitions = 3
		b.lifecycle()
		nc, _ := connect()
		c, err := client.New(nc)
		require.NoError(t, err)
		err = c.Subscribe(b.ctx, s, nil)
		require.ErrorIs(t, err, nats.ErrPermissionViolation)
		require.ErrorContains(t, err, first+"_2: ")
	})
	t.Run("are missing for the number", func(t *testing.T) {
		t.Parallel()
		permissions := permitted()
		permissions.Publish.Deny = []string{"$JS.API.STREAM.INFO.>"}
		b, connect := newGuarded(t, permissions)
		b.lifecycle()
		nc, _ := connect()
		c, err := client.New(nc)
		require.NoError(t, err)
		err = c.Subscribe(b.ctx, s, nil)
		require.ErrorIs(t, err, nats.ErrPermissionViolation)
		require.ErrorContains(t, err, "STREAM.INFO."+first)
	})
	t.Run("are missing for one that is added", func(t *testing.T) {
		t.Parallel()
		b, connect := newGuarded(t, permitted())
		b.lifecycle()
		nc, _ := connect()
		options, problems, look := b.watch()
		c, err := client.New(nc, options...)
		require.NoError(t, err)
		sub := b.subscribe(c, s)
		look()
		b.subjects.Partitions = 2
		b.lifecycle()
		look()
		err = b.problem(problems)
		require.ErrorIs(t, err, nats.ErrPermissionViolation)
		require.ErrorContains(t, err, first+"_1: ")
		b.tell("1", events.TokenExpired, b.user(0))
		sub.hears("1", nil)
		require.NoError(t, sub.ends())
	})
}

// short is a context for what gets no answer.
func short(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
