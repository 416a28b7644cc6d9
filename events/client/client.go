// Package client is a client of Latchkey over NATS. It publishes connects and
// disconnects, subscribes to lifecycle events, and requests tokens. The messages are
// those of package events.
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
	"github.com/latchkey/latchkey/events/sealing"
)

// DefaultTimeout is the time limit for a call whose context has no deadline.
const DefaultTimeout = 30 * time.Second

// Client is a client of one installation. It is safe for concurrent use.
type Client struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	subjects events.Subjects
	timeout  time.Duration
	attempt  time.Duration
	once     bool
	onError  func(error)
	now      func() time.Time
	after    func(time.Duration) <-chan time.Time

	sealConnects bool
	keys         workerKeys
	sealReplies  bool
	replyKey     sealing.PrivateKey
}

// Option changes what New returns.
type Option func(*Client)

// Prefix is the installation's nats.prefix.
func Prefix(prefix string) Option { return func(c *Client) { c.subjects.Prefix = prefix } }

// Timeout replaces DefaultTimeout.
func Timeout(d time.Duration) Option { return func(c *Client) { c.timeout = d } }

// AttemptTimeout is the time limit for each attempt of a publish (default 5 seconds) or a
// token request (DefaultTimeout), so that there is time to retry after a lost answer. For
// token requests it should be longer than the workers' tokens.timeout.
func AttemptTimeout(d time.Duration) Option { return func(c *Client) { c.attempt = d } }

// Once turns off retries.
func Once() Option { return func(c *Client) { c.once = true } }

// OnError sets a function that receives the errors from which the client recovers by itself:
// a handler's error, after which the event comes again, a message that is no event, a
// consumer that is created again, a stream that can't be received from yet, workers' keys
// that can't be had while older ones serve. Several goroutines may call it at once.
func OnError(f func(error)) Option { return func(c *Client) { c.onError = f } }

// New returns a client on a connection, which the caller closes. Give the connection its
// own inbox prefix (nats.CustomInboxPrefix): token replies contain tokens.
func New(nc *nats.Conn, options ...Option) (*Client, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("setting up JetStream: %w", err)
	}
	c := &Client{nc: nc, js: js, timeout: DefaultTimeout, onError: func(error) {}, now: time.Now, after: time.After}
	for _, option := range options {
		option(c)
	}
	if c.sealReplies {
		if c.replyKey, err = sealing.GenerateKey(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func pauses() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{InitialInterval: 100 * time.Millisecond, MaxInterval: 5 * time.Second, Multiplier: 2, RandomizationFactor: 0.2}
}

// bounded gives ctx the client's timeout if it has no deadline.
func (c *Client) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.timeout)
}

// retry repeats attempt, each time with the time limit, until it succeeds, fails with an
// error that is not transient, or ctx would end before the next attempt. It returns the
// last error that is not just the end of ctx.
func (c *Client) retry(ctx context.Context, limit time.Duration, transient func(error) bool, attempt func(context.Context) error) error {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
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
		case err != nil && (c.once || !transient(err)):
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
