package audit_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/store/audit"
)

// An acknowledgement belongs to one attempt, and says whether the message is stored.
func TestOnlyItsOwnAcknowledgementIsTaken(t *testing.T) {
	nc, err := nats.Connect(enginestest.NATS(t).URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	publish := audit.PublishOver(nc)
	subject := enginestest.Name(t)
	_, err = publish(t.Context(), &nats.Msg{Subject: subject})
	require.ErrorIs(t, err, nats.ErrNoResponders)

	published := make(chan *nats.Msg, 1)
	_, err = nc.ChanSubscribe(subject, published)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var first *nats.Msg
	go func() {
		first = <-published
		cancel()
	}()
	_, err = publish(ctx, &nats.Msg{Subject: subject})
	require.ErrorIs(t, err, context.Canceled)

	for answer, want := range map[string]uint64{
		`{"stream":"S","seq":8}`: 8, `{"stream":"S","seq":8,"duplicate":true}`: 8,
		`{"stream":"S","seq":8,"error":{"code":503,"err_code":10077,"description":"full"}}`: 0, `{"seq":8}`: 0, `{}`: 0, "junk": 0, "": 0,
	} {
		go func() {
			m := <-published
			_ = first.Respond([]byte(`{"stream":"S","seq":7}`)) // which comes too late
			_ = m.Respond([]byte(answer))
		}()
		sequence, err := publish(t.Context(), &nats.Msg{Subject: subject})
		require.Equal(t, want, sequence, answer)
		require.Equal(t, want == 0, err != nil, answer)
		if api := (*jetstream.APIError)(nil); len(answer) > 60 {
			require.ErrorAs(t, err, &api)
			require.Equal(t, "full", api.Description)
		}
	}
}
