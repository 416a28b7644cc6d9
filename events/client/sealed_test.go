package client_test

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
	"github.com/latchkey/latchkey/events/sealing"
)

// handOut answers requests for the workers' keys, each with the next of the answers and
// after that with the last, and counts them; nil: not at all.
func (b *bench) handOut(answers ...*nats.Msg) *atomic.Int64 {
	b.t.Helper()
	asked := &atomic.Int64{}
	_, err := b.nc.Subscribe(b.subjects.TokenKeys(), func(m *nats.Msg) {
		n := min(int(asked.Add(1)), len(answers))
		if answer := answers[n-1]; answer != nil {
			_ = m.RespondMsg(&nats.Msg{Header: answer.Header, Data: answer.Data})
		}
	})
	require.NoError(b.t, err)
	require.NoError(b.t, b.nc.Flush())
	return asked
}

func keyPair(t *testing.T) (sealing.PrivateKey, *nats.Msg) {
	t.Helper()
	key, err := sealing.GenerateKey()
	require.NoError(t, err)
	body, err := json.Marshal(events.TokenKeys{Keys: []events.JWK{key.Public().JWK()}})
	require.NoError(t, err)
	return key, &nats.Msg{Data: body}
}

// opens reads a stored message as a worker with the key does.
func (b *bench) opens(body []byte, key sealing.PrivateKey) events.Connected {
	b.t.Helper()
	require.NotContains(b.t, string(body), "SECRET")
	msg, err := events.UnwrapConnected(nil, body)
	require.NoError(b.t, err)
	sealed, err := sealing.Parse(msg.JWE)
	require.NoError(b.t, err)
	plaintext, err := sealed.Open(key)
	require.NoError(b.t, err)
	in, err := msg.DecodeOpened(plaintext)
	require.NoError(b.t, err)
	return in
}

func TestSealedConnects(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stream := b.integration(nil)
	old, oldKeys := keyPair(t)
	fresh, freshKeys := keyPair(t)
	asked := b.handOut(refusal(events.CodeBusy), oldKeys, freshKeys, refusal(events.CodeInternal))
	now := atomic.Pointer[time.Time]{}
	at := func(d time.Duration) { moment := connectedAt.Add(d); now.Store(&moment) }
	at(0)
	problems := make(chan error, 10)
	c := b.client(client.SealConnects(), client.Clock(func() time.Time { return *now.Load() }), client.OnError(func(err error) { problems <- err }))
	published := uint64(0)
	publish := func(key sealing.PrivateKey) {
		t.Helper()
		require.NoError(t, c.PublishConnected(b.ctx, alice()))
		published++
		msg, err := stream.GetMsg(b.ctx, published)
		require.NoError(t, err)
		in := b.opens(msg.Data, key)
		require.Equal(t, "alice", in.UserID)
		require.Equal(t, connectedAt, in.ConnectedAt)
	}
	publish(old)
	require.EqualValues(t, 2, asked.Load(), "busy, then the key")
	at(59 * time.Minute)
	publish(old)
	require.EqualValues(t, 2, asked.Load())
	at(time.Hour)
	publish(fresh)
	require.EqualValues(t, 3, asked.Load())
	require.Empty(t, problems)

	// No key can be had: the one at hand serves for a day more, and no longer.
	at(2*time.Hour + 1)
	publish(fresh)
	var refused *client.RefusedError
	require.ErrorAs(t, <-problems, &refused)
	publish(fresh)
	require.EqualValues(t, 4, asked.Load(), "not with every connect")
	at(2*time.Hour + time.Minute + 1)
	publish(fresh)
	require.EqualValues(t, 5, asked.Load())
	at(26 * time.Hour)
	require.ErrorAs(t, c.PublishConnected(b.ctx, alice()), &refused)
	require.Equal(t, events.CodeInternal, refused.Code)

	info, err := stream.Info(b.ctx)
	require.NoError(t, err)
	require.Equal(t, published, info.State.Msgs)
}

func TestSealedConnectsNeedAKeyAndAConnect(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stream := b.integration(nil)
	c := b.client(client.SealConnects(), client.Timeout(300*time.Millisecond))
	require.ErrorIs(t, c.PublishConnected(context.Background(), alice()), client.ErrNoWorker)
	key, keys := keyPair(t)
	b.handOut(&nats.Msg{Data: []byte(`{"keys":[]}`)}, keys)
	var invalid *events.InvalidError
	require.ErrorAs(t, c.PublishConnected(b.ctx, alice()), &invalid, "an answer without a key")

	body := []byte(`{"userId":"alice","connectedAt":"2026-03-01T09:30:00Z","payload":` + payload.Reveal() + `}`)
	require.NoError(t, c.PublishConnectedBody(b.ctx, body))
	msg, err := stream.GetMsg(b.ctx, 1)
	require.NoError(t, err)
	require.Equal(t, "alice", b.opens(msg.Data, key).UserID)
	for name, body := range map[string]string{
		"sealed already": `{"sealed":"x"}`, "a CloudEvent": `{"specversion":"1.0","id":"1","source":"s","type":"integration.connected","data":` + string(body) + `}`, "no connect": "{}",
	} {
		require.ErrorAs(t, c.PublishConnectedBody(b.ctx, []byte(body)), &invalid, name)
	}
	// A disconnect holds no token.
	require.NoError(t, c.PublishDisconnected(b.ctx, events.Disconnected{UserID: "alice", Everything: true, DisconnectedAt: connectedAt}))
	msg, err = stream.GetMsg(b.ctx, 2)
	require.NoError(t, err)
	_, err = events.DecodeDisconnected(msg.Data)
	require.NoError(t, err)
}

func TestSealedReplies(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	requests := make(chan events.TokenRequest, 10)
	inTheClear := atomic.Bool{}
	_, err := b.nc.Subscribe(b.subjects.TokenGetAll(), func(m *nats.Msg) {
		in, err := events.DecodeTokenRequest(m.Data)
		if err != nil || in.SealTo == nil {
			return
		}
		key, err := sealing.NewPublicKey(*in.SealTo)
		body := tokens(t).Data
		if err == nil && !inTheClear.Load() {
			body, err = key.Seal(body)
		}
		if err == nil {
			_ = m.Respond(body)
			requests <- in
		}
	})
	require.NoError(t, err)
	require.NoError(t, b.nc.Flush())
	c := b.client(client.SealReplies())
	reply, err := c.Tokens(b.ctx, events.TokenRequest{UserID: "alice"})
	require.NoError(t, err)
	require.Equal(t, "SECRET", reply.AccessTokens[0].AccessToken.Reveal())
	first := <-requests

	inTheClear.Store(true)
	_, err = c.Tokens(b.ctx, events.TokenRequest{UserID: "alice"})
	var notSealed *sealing.OpenError
	require.ErrorAs(t, err, &notSealed, "no worker wrote it")
	require.NotContains(t, err.Error(), "SECRET")
	require.Equal(t, first.SealTo, (<-requests).SealTo)

	// A key whose reply the client can't open is found before tokens are handed out.
	for _, c := range []*client.Client{c, b.client()} {
		_, err = c.Tokens(b.ctx, events.TokenRequest{UserID: "alice", SealTo: first.SealTo})
		var invalid *events.InvalidError
		require.ErrorAs(t, err, &invalid)
	}
	require.Empty(t, requests)
}
