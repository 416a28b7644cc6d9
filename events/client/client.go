// Package client speaks to Latchkey over NATS: it announces connected and
// disconnected users, subscribes to what happens to grants, and asks for the
// current tokens of a user. The messages themselves are those of package
// events.
package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
)

// DefaultTimeout bounds a call whose context has no deadline.
const DefaultTimeout = 30 * time.Second

// Client talks to one installation of Latchkey. It may be used by many
// goroutines at once.
type Client struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	subjects events.Subjects
	timeout  time.Duration
	attempt  time.Duration
	once     bool
	onError  func(error)
}

// Option changes what New returns.
type Option func(*Client)

// Prefix is the installation's nats.prefix.
func Prefix(prefix string) Option { return func(c *Client) { c.subjects.Prefix = prefix } }

// Timeout bounds a publish or a token request whose context has no deadline, in
// place of DefaultTimeout.
func Timeout(d time.Duration) Option { return func(c *Client) { c.timeout = d } }

// AttemptTimeout bounds each single attempt of a publish (5 seconds) or a token
// request (DefaultTimeout), so that a lost answer leaves time for another. For
// token requests it should be longer than the workers' tokens.timeout.
func AttemptTimeout(d time.Duration) Option { return func(c *Client) { c.attempt = d } }

// Once has publishes and token requests tried a single time.
func Once() Option { return func(c *Client) { c.once = true } }

// OnError is told of what a running subscription gets over by itself: an event
// that was not handled and will come again, a message that is no event, or a
// consumer that is being made anew. It may be called by many goroutines at once.
func OnError(f func(error)) Option { return func(c *Client) { c.onError = f } }

// New returns a client that uses a connection; the connection stays the
// caller's to close. Give the connection an inbox prefix of its own
// (nats.CustomInboxPrefix): replies to token requests hold tokens.
func New(nc *nats.Conn, options ...Option) (*Client, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("setting up JetStream: %w", err)
	}
	c := &Client{nc: nc, js: js, timeout: DefaultTimeout, onError: func(error) {}}
	for _, option := range options {
		option(c)
	}
	return c, nil
}

// pauses are those between attempts: they double, and differ from one client to the next.
func pauses() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{InitialInterval: 100 * time.Millisecond, MaxInterval: 5 * time.Second, Multiplier: 2, RandomizationFactor: 0.2}
}

// retry makes attempts, each bounded by limit, until one succeeds or fails for
// good, or the deadline of ctx comes before the next. It returns the error of the last
// attempt, unless that says no more than that time ran out.
func (c *Client) retry(ctx context.Context, limit time.Duration, passing func(error) bool, attempt func(context.Context) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	if c.attempt > 0 {
		limit = c.attempt
	}
	var last error
	deadline, _ := ctx.Deadline()
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		try, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		err := attempt(try)
		if last == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		var refused *RefusedError
		switch {
		case err != nil && (c.once || !passing(err)):
			err = backoff.Permanent(err)
		case errors.As(err, &refused) && refused.RetryAfter > 0:
			err = &backoff.RetryAfterError{Duration: refused.RetryAfter}
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pauses()), backoff.WithMaxElapsedTime(time.Until(deadline)))
	if err == nil || errors.Is(ctx.Err(), context.Canceled) {
		return err
	}
	return last
}
