package client_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
	"github.com/latchkey/latchkey/events/secret"
)

func tokens(t *testing.T) *nats.Msg {
	body, err := events.TokenReply{AccessTokens: []events.IntegrationAccessToken{{AccountID: "a", AccessToken: secret.New("SECRET")}}}.Encode()
	require.NoError(t, err)
	return &nats.Msg{Data: body}
}

func TestTokensAreAskedForUntilTheyCanBeHad(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	done := make(chan error, 1)
	var reply events.TokenReply
	go func() { // before anybody answers
		var err error
		reply, err = b.client(client.AttemptTimeout(200*time.Millisecond)).Tokens(b.ctx, events.TokenRequest{UserID: "a.b"})
		done <- err
	}()
	b.answer(refusal(events.CodeBusy), nil, refusal(events.CodeBusy), tokens(t))
	require.NoError(t, <-done)
	require.Equal(t, "SECRET", reply.AccessTokens[0].AccessToken.Reveal())
}

// A worker says when it helps to ask again.
func TestTokensAreNotAskedForBeforeItHelps(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	later := func(seconds int) *nats.Msg {
		msg := refusal(events.CodeBusy)
		msg.Data = fmt.Appendf(nil, `{"code":"busy","message":"words","retryAfterSeconds":%d}`, seconds)
		return msg
	}
	b.answer(later(1), tokens(t), later(3600), nil)
	begun := time.Now()
	_, err := b.client().Tokens(b.ctx, events.TokenRequest{UserID: "alice"})
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(begun), time.Second)
	// Not within the deadline: the answer is there at once.
	_, err = b.client().Tokens(b.ctx, events.TokenRequest{UserID: "alice"})
	var refused *client.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, time.Hour, refused.RetryAfter)
	require.NoError(t, b.ctx.Err())
}

func TestTokenErrorsHaveTypes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	short := func(options ...client.Option) *client.Client {
		return b.client(append(options, client.Timeout(400*time.Millisecond))...)
	}
	ask := func(c *client.Client) error {
		_, err := c.Tokens(context.Background(), events.TokenRequest{UserID: "alice"}) // no deadline but the client's
		return err
	}
	require.ErrorIs(t, ask(short()), client.ErrNoWorker)
	require.ErrorIs(t, ask(b.client(client.Once())), client.ErrNoWorker)
	_, err := b.client().Tokens(b.ctx, events.TokenRequest{})
	var invalid *events.InvalidError
	require.ErrorAs(t, err, &invalid)

	dead := events.UnavailableAccount{AccountID: "a", BrokerType: "coinbase", GrantID: "g", Code: events.CodeExpired, Reason: events.ReasonRejected}
	reported := events.RefusedResult{GrantID: "g", Version: 3, Outcome: events.RefusedNotRefreshable}
	b.answer(refusal(events.CodeExpired, dead, reported), refusal(events.CodeInternal), &nats.Msg{Data: []byte("SECRET")}, refusal(events.CodeBusy), refusal(events.CodeBusy), nil)
	var refused *client.RefusedError
	require.ErrorAs(t, ask(b.client()), &refused)
	require.Equal(t, client.RefusedError{Code: events.CodeExpired, Message: "words", Unavailable: []events.UnavailableAccount{dead}, Refused: []events.RefusedResult{reported}}, *refused)
	require.True(t, refused.Reconnect())
	require.ErrorAs(t, ask(b.client()), &refused)
	require.Equal(t, events.CodeInternal, refused.Code)
	require.False(t, refused.Reconnect())
	err = ask(b.client())
	require.ErrorAs(t, err, &invalid, "an answer that is none")
	require.NotContains(t, err.Error(), "SECRET")
	require.ErrorAs(t, ask(b.client(client.Once())), &refused)
	require.Equal(t, events.CodeBusy, refused.Code)
	require.ErrorAs(t, ask(short()), &refused, "busy, then silent to the deadline")
	require.Equal(t, events.CodeBusy, refused.Code)
	require.ErrorIs(t, ask(short()), context.DeadlineExceeded, "silent")
}
