package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events/pause"
)

// publisher publishes one message after the other, each of which it waits for. It does so
// as jetstream.JetStream's PublishMsg, with a subscription of its own: that hands a message
// to the goroutine that waits for it, without another in between. On an idle machine, where
// waking a goroutine costs most, that is worth a quarter of the time.
type publisher struct {
	conn  *nats.Conn
	sub   *nats.Subscription // nil: none yet
	inbox string
	count uint64
}

// Attempts while nothing listens, as when a stream changes its leader.
const (
	unheardAttempts = 3
	unheardPause    = jetstream.DefaultPubRetryWait
)

func (p *publisher) publish(ctx context.Context, msg *nats.Msg) (sequence uint64, err error) {
	for attempt := 1; ; attempt++ {
		sequence, err = p.attempt(ctx, msg)
		if attempt == unheardAttempts || !errors.Is(err, nats.ErrNoResponders) {
			return sequence, err
		}
		if err := pause.For(ctx, unheardPause); err != nil {
			return 0, err
		}
	}
}

func (p *publisher) attempt(ctx context.Context, msg *nats.Msg) (sequence uint64, err error) {
	if p.sub == nil {
		inbox := p.conn.NewInbox()
		if p.sub, err = p.conn.SubscribeSync(inbox + ".*"); err != nil {
			return 0, fmt.Errorf("subscribing to acknowledgements: %w", err)
		}
		p.inbox = inbox
	}
	p.count++
	msg.Reply = p.inbox + "." + strconv.FormatUint(p.count, 10)
	if err := p.conn.PublishMsg(msg); err != nil {
		return 0, fmt.Errorf("publishing: %w", err)
	}
	for {
		answer, err := p.sub.NextMsgWithContext(ctx)
		switch {
		case err != nil:
			return 0, fmt.Errorf("waiting for an acknowledgement: %w", err)
		case answer.Subject == msg.Reply: // else it comes too late, for an earlier attempt
			return acknowledged(answer)
		}
	}
}

// acknowledged returns the sequence number in an acknowledgement.
func acknowledged(answer *nats.Msg) (sequence uint64, err error) {
	if len(answer.Data) == 0 && answer.Header.Get("Status") == "503" {
		return 0, nats.ErrNoResponders
	}
	var ack struct {
		jetstream.PubAck
		Error *jetstream.APIError `json:"error"`
	}
	switch err := json.Unmarshal(answer.Data, &ack); {
	case err != nil:
		return 0, jetstream.ErrInvalidJSAck
	case ack.Error != nil:
		return 0, ack.Error
	case ack.Stream == "":
		return 0, jetstream.ErrInvalidJSAck
	}
	return ack.Sequence, nil
}
