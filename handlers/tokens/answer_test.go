package tokens

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// TestARefusalOfManyAccountsArrives: one that names more accounts than a NATS
// message holds is sent without them.
func TestARefusalOfManyAccountsArrives(t *testing.T) {
	maxPayload := int32(16 << 10)
	f := newFixtureOn(t, enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) { o.MaxPayload = maxPayload }}))
	e := f.envelope()
	s := f.tokenService(e, func(_ context.Context, user string) ([]*store.Grant, error) {
		g := grantOf(t, e, user)
		g.State, g.Reason, g.Accounts = store.Expired, events.ReasonRejected, nil
		for i := range 1000 {
			g.Accounts = append(g.Accounts, store.Account{ID: fmt.Sprint("account-", i)})
		}
		return []*store.Grant{g}, nil
	})
	nc := f.js.Conn()
	require.NoError(t, s.Start(nc))
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	for body, named := range map[string]int{`{"userId":"user"}`: 0, `{"userId":"user","accountId":"account-7"}`: 1} {
		reply, err := nc.Request(f.subjects.TokenGet("user"), []byte(body), patience)
		require.NoError(t, err)
		require.Equal(t, events.CodeExpired, reply.Header.Get(micro.ErrorHeader))
		var in refusal
		require.NoError(t, json.Unmarshal(reply.Data, &in))
		require.Equal(t, events.CodeExpired, in.Code)
		require.Len(t, in.Unavailable, named)
	}
}

// What is sent during a break leaves after it, and that may be long after a disconnect.
func TestNoTokenIsSentDuringABreak(t *testing.T) {
	broker := enginestest.NATS(t)
	broker.Embedded() // or skip
	f := newFixtureOn(t, broker)
	s := f.tokenService(f.envelope(), nil)
	s.conn = link(t, broker.URL())
	broker.Stop()
	f.eventually(s.conn.IsReconnecting, "a break")
	s.atWork.Add(1)
	answers := make(chan *nats.Msg, 2)
	_, err := s.conn.ChanSubscribe("_INBOX.answer", answers)
	require.NoError(t, err)
	a := &answer{Service: s, req: requestWith{reply: "_INBOX.answer"}, ctx: t.Context(), cancel: func() {}, body: []byte("a token")}
	a.send(nil)
	require.Equal(t, make([]byte, len("a token")), a.body)
	broker.Restart()
	msg := enginestest.Receive(t, answers)
	require.Equal(t, events.CodeBusy, msg.Header.Get(micro.ErrorHeader), string(msg.Data))
}
