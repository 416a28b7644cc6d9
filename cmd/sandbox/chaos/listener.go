package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
)

// listener is a durable subscriber to all lifecycle events, for one goroutine.
type listener struct {
	js       jetstream.JetStream
	consumer jetstream.Consumer // nil: subscribe again
	seen     map[string]bool
	byGrant  map[string][]publishedEvent
	repeats  int
}

// publishedEvent is an event with the time at which NATS stored it.
type publishedEvent struct {
	events.LifecycleEvent
	published time.Time
}

func newListener(js jetstream.JetStream) *listener {
	return &listener{js: js, seen: map[string]bool{}, byGrant: map[string][]publishedEvent{}}
}

func (l *listener) drain(ctx context.Context) error {
	if l.consumer == nil {
		c, err := l.js.CreateOrUpdateConsumer(ctx, lifecycle, jetstream.ConsumerConfig{Durable: "chaos", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 10_000})
		if err != nil {
			return fmt.Errorf("subscribing to events: %w", err)
		}
		l.consumer = c
	}
	for {
		batch, err := l.consumer.FetchNoWait(1000)
		if err != nil {
			l.consumer = nil
			return fmt.Errorf("receiving events: %w", err)
		}
		n := 0
		for m := range batch.Messages() {
			n++
			e, decodeErr := events.DecodeLifecycle(m.Data())
			meta, err := m.Metadata()
			if err != nil {
				return fmt.Errorf("reading an event's metadata: %w", err)
			}
			switch {
			case decodeErr != nil && strings.Contains(m.Subject(), ".junk"):
				// a scene's
			case decodeErr != nil:
				return decodeErr
			case l.seen[e.ID]:
				l.repeats++
			default:
				l.seen[e.ID] = true
				l.byGrant[e.Data.GrantID] = append(l.byGrant[e.Data.GrantID], publishedEvent{e, meta.Timestamp})
			}
			if err := m.Ack(); err != nil {
				return fmt.Errorf("acknowledging an event: %w", err)
			}
		}
		if err := batch.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, jetstream.ErrNoMessages) {
			l.consumer = nil
			return fmt.Errorf("receiving events: %w", err)
		}
		if n == 0 {
			return nil
		}
	}
}
