package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
)

// Subscription says which lifecycle events to receive, and how.
type Subscription struct {
	// Durable names a consumer that NATS keeps, with its place in the stream:
	// subscribers of one name share its events, and one that comes back goes on
	// where it was. Empty: an ordered consumer of this subscriber alone, that is
	// gone when the subscription ends.
	Durable string
	// Kinds are some of events.LifecycleKinds. Empty: all.
	Kinds []string
	// Users narrows the subscription to some users. Empty: all.
	Users []string
	// NewOnly begins a subscription without a place at what is published from
	// now on, not at the oldest event that the stream still has.
	NewOnly bool
	// AckWait is how long NATS waits for a sign of life before it gives an
	// event to another subscriber (30 seconds). A handler may take longer: the
	// signs are given for it.
	AckWait time.Duration
}

// Handler handles one event. Events come at least once, so that one whose ID
// was seen may come again.
type Handler func(ctx context.Context, e events.LifecycleEvent) error

// ErrSubscription: the subscription can't be as it is described.
var ErrSubscription = errors.New("invalid subscription")

const (
	ackWait = 30 * time.Second
	// heartbeat is how often NATS shows that the consumer is still there; it is
	// looked for after two that did not come.
	heartbeat = 3 * time.Second
)

// Subscribe hands lifecycle events to handle, one after the other, until ctx
// ends; then it returns nil. Call it several times for more at once.
//
// With a Durable, an event is acknowledged once it was handled; after an error
// it comes again, later each time (1 second to 1 minute). A consumer that gets
// lost is made anew. Without a Durable nothing comes again, and an error of
// handle ends the subscription.
//
// A message that is no lifecycle event of its subject is passed over, and
// reported to OnError.
func (c *Client) Subscribe(ctx context.Context, s Subscription, handle Handler) error {
	filters, err := c.filters(s)
	if err != nil {
		return err
	}
	if s.AckWait <= 0 {
		s.AckWait = ackWait
	}
	receive := c.receiveDurable
	if s.Durable == "" {
		receive = c.receiveOrdered
	}
	began, pauses := false, pauses()
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		err := receive(ctx, s, filters, handle, func() { began = true; pauses.Reset() })
		var failed *handlerError
		switch {
		case errors.As(err, &failed):
			err = backoff.Permanent(failed.error)
		case !began || s.Durable == "":
			err = backoff.Permanent(fmt.Errorf("subscribing to lifecycle events: %w", err))
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, _ time.Duration) {
		c.onError(fmt.Errorf("the subscription is made anew: %w", err))
	}))
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the caller ended it
	}
	return err
}

// filters returns the subjects of a subscription.
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

func (s Subscription) deliverPolicy() jetstream.DeliverPolicy {
	if s.NewOnly {
		return jetstream.DeliverNewPolicy
	}
	return jetstream.DeliverAllPolicy
}

// receiveDurable hands out events until the consumer or ctx is gone.
func (c *Client) receiveDurable(ctx context.Context, s Subscription, filters []string, handle Handler, begun func()) error {
	consumer, err := c.js.CreateOrUpdateConsumer(ctx, c.subjects.LifecycleStream(), jetstream.ConsumerConfig{
		Durable: s.Durable, FilterSubjects: filters, DeliverPolicy: s.deliverPolicy(),
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: s.AckWait, MaxDeliver: -1,
	})
	if err != nil {
		return err
	}
	// One at a time, or those that wait here would be given to others.
	messages, err := consumer.Messages(jetstream.PullMaxMessages(1), jetstream.PullHeartbeat(heartbeat), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return err
	}
	defer messages.Stop()
	begun()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if errors.Is(err, jetstream.ErrNoHeartbeat) {
			if _, err = consumer.Info(ctx); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		c.deliver(ctx, s, msg, handle)
	}
}

// deliver handles a message and tells NATS how that went. When ctx ends, what
// is being handled is still finished.
func (c *Client) deliver(ctx context.Context, s Subscription, msg jetstream.Msg, handle Handler) {
	e, err := c.event(msg)
	if err != nil {
		err = msg.TermWithReason("not a lifecycle event")
	} else if err = alive(s.AckWait, msg, func() error { return handle(ctx, e) }); err != nil {
		c.onError(fmt.Errorf("handling %s %s: %w", e.Kind, e.ID, err))
		err = msg.NakWithDelay(again(msg))
	} else {
		err = msg.Ack()
	}
	if err != nil {
		c.onError(fmt.Errorf("acknowledging an event: %w", err))
	}
}

// event decodes a message, or reports that it is passed over: somebody else than
// a worker wrote it.
func (c *Client) event(msg jetstream.Msg) (events.LifecycleEvent, error) {
	e, err := events.DecodeLifecycle(msg.Data())
	if err == nil && msg.Subject() != c.subjects.Lifecycle(e.Kind, e.Data.UserID) {
		err = &events.InvalidError{Message: e.Kind, Problem: "its subject is that of another kind or user"}
	}
	if err != nil {
		c.onError(fmt.Errorf("an event is passed over: %w", err))
	}
	return e, err
}

// again is the pause before an event that was not handled comes again.
func again(msg jetstream.Msg) time.Duration {
	meta, err := msg.Metadata()
	if err != nil || meta.NumDelivered > 6 {
		return time.Minute
	}
	return time.Second << (max(meta.NumDelivered, 1) - 1)
}

// alive tells NATS while do runs that the message is being handled.
func alive(wait time.Duration, msg jetstream.Msg, do func() error) error {
	signs := time.NewTicker(max(wait/3, 1))
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-signs.C:
				_ = msg.InProgress() // if it does not arrive, the event comes again
			case <-done:
				return
			}
		}
	}()
	defer func() { signs.Stop(); close(done); <-ended }()
	return do()
}

// handlerError is an error of a handler that ends a subscription.
type handlerError struct{ error }

// receiveOrdered hands out events in order until ctx ends or handle fails.
func (c *Client) receiveOrdered(ctx context.Context, s Subscription, filters []string, handle Handler, begun func()) error {
	consumer, err := c.js.OrderedConsumer(ctx, c.subjects.LifecycleStream(), jetstream.OrderedConsumerConfig{FilterSubjects: filters, DeliverPolicy: s.deliverPolicy()})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	begun()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		e, err := c.event(msg)
		if err != nil {
			continue
		}
		if err := handle(ctx, e); err != nil {
			return &handlerError{err}
		}
	}
}
