package client_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
)

// A subscription that NATS refuses is an error that names it, at once and also when the
// permission is taken away later. One that it allows gets events until it is ended.
func TestRejectionsSayThatTheyAreRefused(t *testing.T) {
	t.Parallel()
	subjects := events.Subjects{}
	options := func(allowed ...string) *server.Options {
		return &server.Options{
			Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true,
			Users: []*server.User{
				{Username: "worker", Password: "x"},
				{Username: "publisher", Password: "x", Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Allow: allowed}}},
			},
		}
	}
	s, err := server.NewServer(options(subjects.Rejected("alice")))
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	require.True(t, s.ReadyForConnections(patience))
	connect := func(user string) *nats.Conn {
		nc, err := nats.Connect(s.ClientURL(), nats.UserInfo(user, "x"))
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		return nc
	}
	c, err := client.New(connect("publisher"))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	none := func(events.RejectedEvent) {}

	for range 2 { // the second time the connection knows of the first
		for subject, users := range map[string][]string{subjects.RejectedAll(): nil, subjects.Rejected("bob"): {"bob", "alice"}} {
			err := c.Rejections(ctx, users, none)
			require.ErrorIs(t, err, nats.ErrPermissionViolation)
			require.ErrorContains(t, err, subject)
		}
	}

	heard, ended := make(chan events.RejectedEvent, 100), make(chan error, 1)
	go func() {
		ended <- c.Rejections(ctx, []string{"alice"}, func(e events.RejectedEvent) { heard <- e })
	}()
	worker := connect("worker")
	body, err := events.RejectedEvent{ID: "1", Time: time.Unix(1, 0).UTC(), Data: events.Rejected{UserID: "alice", Reason: events.RejectedOlder}}.Encode()
	require.NoError(t, err)
	require.Eventually(t, func() bool { // until it has subscribed
		require.NoError(t, worker.Publish(subjects.Rejected("alice"), body))
		return len(heard) > 0
	}, patience, 10*time.Millisecond)
	require.Equal(t, events.RejectedOlder, (<-heard).Data.Reason)
	require.NoError(t, s.ReloadOptions(options("other")))
	err = <-ended
	require.ErrorIs(t, err, nats.ErrPermissionViolation)
	require.ErrorContains(t, err, subjects.Rejected("alice"))

	require.NoError(t, s.ReloadOptions(options(subjects.Rejected("alice"))))
	ctx, cancel = context.WithCancel(ctx)
	go func() { ended <- c.Rejections(ctx, []string{"alice"}, func(e events.RejectedEvent) { heard <- e }) }()
	for len(heard) > 0 {
		<-heard
	}
	require.Eventually(t, func() bool {
		require.NoError(t, worker.Publish(subjects.Rejected("alice"), body))
		return len(heard) > 0
	}, patience, 10*time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
}
