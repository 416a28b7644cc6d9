package handlers

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
)

// TestADeadLetterKeepsTheAttributesOfItsEvent: what was in headers counts after a
// replay as it did before, also where the letter lies in parts.
func TestADeadLetterKeepsTheAttributesOfItsEvent(t *testing.T) {
	maxPayload := int32(16 << 10)
	f := newFixtureOn(t, small(t, &maxPayload))
	for name, pad := range map[string]int{"small": 0, "in parts": 14 << 10} {
		t.Run(name, func(t *testing.T) {
			body := `{"userId":"u","x":"` + strings.Repeat("x", pad) + `","payload":{"brokerType":"b","refreshToken":"refresh"}}`
			msg := nats.NewMsg(f.subjects.Connected())
			msg.Data = []byte(body)
			for name, value := range map[string]string{"ce-specversion": "1.0", "ce-type": "integration.connected", "ce-id": "1", "ce-source": "s", "ce-time": "2020-01-02T03:04:05Z"} {
				msg.Header.Set(name, value)
			}
			_, err := f.js.PublishMsg(t.Context(), msg)
			require.NoError(t, err)
			stop := f.run(1, refuseAll)
			letter := f.only()
			stop()
			opened, err := f.dead.Open(t.Context(), letter.DeadLetter)
			require.NoError(t, err)
			require.Equal(t, body, string(opened))
			in, err := f.dead.connected(t.Context(), letter.DeadLetter)
			require.NoError(t, err)
			require.Equal(t, 2020, in.ConnectedAt.Year())

			require.NoError(t, f.dead.Replay(t.Context(), letter))
			got := make(chan time.Time, 1)
			stop = f.run(1, func(ctx context.Context, msg *message.Message) error {
				in, err := decodeConnected(ctx, nil, config.Default().Connect, msg.Payload, deliveryOf(msg))
				if err == nil {
					got <- in.ConnectedAt
				}
				return err
			})
			require.Equal(t, 2020, enginestest.Receive(t, got).Year())
			stop()
			f.eventually(func() bool { return f.left(f.subjects.IntegrationStream()) == 0 }, "not acknowledged")
		})
	}
	msg := nats.NewMsg(f.subjects.Connected())
	msg.Data = []byte(`{"userId":"u","payload":{"brokerType":"b","refreshToken":"refresh"}}`)
	msg.Header.Set("ce-type", "com.example.other")
	_, err := f.js.PublishMsg(t.Context(), msg)
	require.NoError(t, err)
	f.run(1, Connected(nil, nil, config.Default().Connect))
	require.Contains(t, f.only().Reason, events.IntegrationConnected+": ce-type")
}
