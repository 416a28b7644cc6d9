package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
)

// Subscription selects lifecycle events.
type Subscription struct {
	// Durable names a durable consumer: subscribers with the same name share its events
	// and continue where it was. They must have the same Kinds, Users and AckWait.
	// Empty: an ordered consumer for this subscription.
	Durable string
	// Kinds are some of events.LifecycleKinds. Empty: all.
	Kinds []string
	// Users narrows the subscription to some users. Empty: all.
	Users []string
	// NewOnly makes a new consumer start with the next event, not with the oldest in the
	// stream. It makes no difference to a consumer that exists. On a stream that comes later
	// the consumer starts with what has happened since it began on the first.
	NewOnly bool
	// AckWait is the time without a sign of progress after which NATS delivers an event
	// again (default 30 seconds). A handler may take longer: the client signals progress.
	AckWait time.Duration
}

// Handler handles one event. An event may come more than once, with the same ID.
type Handler func(ctx context.Context, e events.LifecycleEvent) error

// ErrSubscription: the subscription names an unknown kind or an invalid user.
var ErrSubscription = errors.New("invalid subscription")

const (
	ackWait = 30 * time.Second
	// heartbeat is the interval of heartbeats from NATS. After two without one the client
	// checks whether the consumer still exists.
	heartbeat = 3 * time.Second
)

// Subscribe calls handle for lifecycle events, one at a time, until ctx ends; then it
// returns nil. Call it several times for concurrency.
//
// It receives from all streams of the installation, which the first one names the number
// of, and within a minute from those that come later. The events of a user are in one
// stream. Between streams there is no order.
//
// With a Durable, an event is acknowledged when handle returns nil. After an error it
// comes again, with growing delays (1 second to 1 minute). A consumer that exists is never
// changed: if its settings are others, the error wraps ErrDurable and names them. Without a
// Durable an error of handle ends the subscription. A consumer that is lost meanwhile is
// created again and continues where it was, perhaps with some events once more.
//
// At the start Subscribe fails if it may not receive from one of the streams, and names it.
// Later on, and for a stream that is missing, it tells OnError and tries again.
//
// Messages that are no lifecycle event of their subject go to OnError.
func (c *Client) Subscribe(ctx context.Context, s Subscription, handle Handler) error {
	filters, err := c.filters(s)
	if err != nil {
		return err
	}
	if s.AckWait <= 0 {
		s.AckWait = ackWait
	}
	err = (&subscription{c: c, s: s, filters: filters, calls: make(chan call)}).run(ctx, handle)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the caller ended the subscription
	}
	return err
}

func (c *Client) filters(s Subscription) ([]string, error) {
	kinds, users := slices.Compact(slices.Sorted(slices.Values(s.Kinds))), slices.Compact(slices.Sorted(slices.Values(s.Users)))
	if len(kinds) == 0 {
		kinds = events.LifecycleKinds
	}
	var out []string
	for _, kind := range kinds {
		if !slices.Contains(events.LifecycleKinds, kind) {
			return nil, fmt.Errorf("%w: no kind %q", ErrSubscription, kind)
		}
		if len(users) == 0 {
			out = append(out, c.subjects.LifecycleAll(kind))
		}
		for _, user := range users {
			if err := events.CheckUserID(user); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrSubscription, err)
			}
			out = append(out, c.subjects.Lifecycle(kind, user))
		}
	}
	return out, nil
}

// event decodes a message. An error goes to OnError too: no worker wrote the message.
func (c *Client) event(msg jetstream.Msg) (events.LifecycleEvent, error) {
	e, err := events.DecodeLifecycle(msg.Data())
	if err == nil && msg.Subject() != c.subjects.Lifecycle(e.Kind, e.Data.UserID) {
		err = &events.InvalidError{Message: e.Kind, Problem: "its subject is that of another kind or user"}
	}
	if err != nil {
		c.onError(fmt.Errorf("ignoring an event: %w", err))
	}
	return e, err
}

func redeliveryDelay(msg jetstream.Msg) time.Duration {
	meta, err := msg.Metadata()
	if err != nil || meta.NumDelivered > 6 {
		return time.Minute
	}
	return time.Second << (max(meta.NumDelivered, 1) - 1)
}

// signalProgress tells NATS, while do runs, that the message is being handled.
func signalProgress(wait time.Duration, msg jetstream.Msg, do func() error) error {
	signs := time.NewTicker(max(wait/3, 1))
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-signs.C:
				_ = msg.InProgress() // if it is lost, the event comes again
			case <-done:
				return
			}
		}
	}()
	defer func() { signs.Stop(); close(done); <-ended }()
	return do()
}
