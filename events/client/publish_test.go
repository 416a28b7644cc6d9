package client_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
	"github.com/latchkey/latchkey/events/secret"
)

var (
	connectedAt = time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC)
	payload     = secret.New(`{"accessToken":{"accountTokens":[{"account":{"accountId":"a"},"accessToken":"SECRET","refreshToken":"SECRET too"}],"brokerType":"coinbase"}}`)
)

func alice() client.Connected {
	return client.Connected{UserID: "alice", Payload: payload, ConnectedAt: connectedAt}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stream := b.integration(nil)
	c := b.client()
	require.NoError(t, c.PublishConnected(b.ctx, alice()))
	require.NoError(t, c.PublishDisconnected(b.ctx, events.Disconnected{UserID: "alice", AccountID: "a", DisconnectedAt: connectedAt}))
	info, err := stream.Info(b.ctx)
	require.NoError(t, err)
	require.EqualValues(t, 2, info.State.Msgs)

	msg, err := stream.GetMsg(b.ctx, 1)
	require.NoError(t, err)
	connected, err := events.DecodeConnected(msg.Data)
	require.NoError(t, err)
	require.Equal(t, "alice", connected.UserID)
	require.Equal(t, connectedAt, connected.ConnectedAt)
	require.Equal(t, "SECRET too", connected.Payload.AccessToken.AccountTokens[0].RefreshToken.Reveal())
	msg, err = stream.GetMsg(b.ctx, 2)
	require.NoError(t, err)
	disconnected, err := events.DecodeDisconnected(msg.Data)
	require.NoError(t, err)
	require.Equal(t, events.Disconnected{UserID: "alice", AccountID: "a", DisconnectedAt: connectedAt}, disconnected)
}

// JetStream acknowledges what it drops as a repetition. Nobody may be able to
// foresee the id of a message: neither from its body nor from earlier messages.
func TestNobodyElseCanMakeAPublishARepetition(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stream := b.integration(nil)
	body := []byte("the same each time")
	for n := range 3 {
		require.NoError(t, b.client().PublishConnectedBody(b.ctx, body))
		require.NoError(t, b.client().PublishConnectedBody(b.ctx, body))
		msg, err := stream.GetMsg(b.ctx, uint64(4*n+1))
		require.NoError(t, err)
		id := msg.Header.Get(jetstream.MsgIDHeader)
		require.Len(t, id, 26)
		// Somebody publishes junk under what he makes of all that he can know.
		for i, guess := range []string{id[:25] + "A", fmt.Sprintf("%x", sha256.Sum256(body))} {
			_, err = b.js.Publish(b.ctx, b.subjects.Connected(), []byte("junk"), jetstream.WithMsgID(fmt.Sprint(guess, n, i)))
			require.NoError(t, err)
		}
	}
	require.NoError(t, b.client().PublishConnectedBody(b.ctx, body))
	info, err := stream.Info(b.ctx)
	require.NoError(t, err)
	require.EqualValues(t, 13, info.State.Msgs)
}

// All attempts of one publish have one id.
func TestALostAcknowledgementIsNoSecondMessage(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ids := make(chan string, 100)
	sub, err := b.nc.Subscribe(b.subjects.Connected(), func(m *nats.Msg) { ids <- m.Header.Get(jetstream.MsgIDHeader) })
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- b.client(client.AttemptTimeout(50*time.Millisecond)).PublishConnected(b.ctx, alice()) }()
	first := <-ids
	require.Equal(t, first, <-ids)
	require.NoError(t, sub.Unsubscribe())
	b.integration(nil)
	require.NoError(t, <-done)
}

func TestPublishTriesAgainUntilThereIsRoom(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := b.client()
	done := make(chan error)
	go func() { done <- c.PublishConnected(b.ctx, alice()) }()
	stream := b.integration(func(cfg *jetstream.StreamConfig) { cfg.MaxMsgs, cfg.Discard = 1, jetstream.DiscardNew })
	require.NoError(t, <-done, "the stream was not there at first")

	bob := alice()
	bob.UserID = "bob"
	short, cancel := context.WithTimeout(b.ctx, 500*time.Millisecond)
	defer cancel()
	var full *jetstream.APIError
	require.ErrorAs(t, c.PublishConnected(short, bob), &full, "the deadline's error tells why")

	go func() { done <- c.PublishConnected(b.ctx, bob) }()
	require.NoError(t, stream.Purge(b.ctx))
	require.NoError(t, <-done)
	msg, err := stream.GetLastMsgForSubject(b.ctx, b.subjects.Connected())
	require.NoError(t, err)
	require.Contains(t, string(msg.Data), "bob")
}

func TestPublishRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stream := b.integration(nil)
	c := b.client()
	for name, change := range map[string]func(*client.Connected){
		"no user":    func(in *client.Connected) { in.UserID = "" },
		"no time":    func(in *client.Connected) { in.ConnectedAt = time.Time{} },
		"no JSON":    func(in *client.Connected) { in.Payload = secret.New(`{"SECRET":`) },
		"no payload": func(in *client.Connected) { in.Payload = secret.New(`{"SECRET":1}`) },
	} {
		in := alice()
		change(&in)
		err := c.PublishConnected(b.ctx, in)
		var invalid *events.InvalidError
		require.ErrorAs(t, err, &invalid, name)
		require.NotContains(t, err.Error(), "SECRET", name)
	}
	for name, in := range map[string]events.Disconnected{
		"no user": {DisconnectedAt: connectedAt, Everything: true}, "no time": {UserID: "alice", Everything: true},
		"nothing that narrows": {UserID: "alice", DisconnectedAt: connectedAt},
	} {
		var invalid *events.InvalidError
		require.ErrorAs(t, c.PublishDisconnected(b.ctx, in), &invalid, name)
	}
	err := c.PublishConnectedBody(b.ctx, []byte(strings.Repeat("x", int(b.nc.MaxPayload())+1)))
	require.ErrorIs(t, err, client.ErrTooLarge)
	info, err := stream.Info(b.ctx)
	require.NoError(t, err)
	require.Zero(t, info.State.Msgs)

	b.nc.Close()
	require.ErrorIs(t, c.PublishConnected(b.ctx, alice()), nats.ErrConnectionClosed)
}

func TestPublishEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, cancel := context.WithCancelCause(b.ctx)
	time.AfterFunc(200*time.Millisecond, func() { cancel(errors.New("enough")) })
	require.Error(t, b.client().PublishConnected(ctx, alice()), "there is no stream")
	require.NoError(t, b.ctx.Err())
	require.ErrorIs(t, b.client(client.Once()).PublishConnected(b.ctx, alice()), jetstream.ErrNoStreamResponse)
}
