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
	backoff  backoff
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
	c := &Client{nc: nc, js: js, timeout: DefaultTimeout, onError: func(error) {}, backoff: backoff{100 * time.Millisecond, 5 * time.Second}}
	for _, option := range options {
		option(c)
	}
	return c, nil
}

// backoff is the range of the pauses between attempts, which double.
type backoff struct{ min, max time.Duration }

func (b backoff) after(attempt int) time.Duration {
	if attempt > 30 {
		return b.max
	}
	return min(b.min<<max(attempt-1, 0), b.max)
}

// retry has attempt made, each bounded by limit, until it succeeds, fails for
// good, or the deadline of ctx comes before the next. It returns the last
// attempt's error, which says more than that time ran out.
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
	for n := 1; ; n++ {
		try, cancel := context.WithTimeout(ctx, limit)
		err := attempt(try)
		cancel()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && errors.Is(err, context.DeadlineExceeded) && last != nil {
			return last
		}
		if err == nil || c.once || !passing(err) || ctx.Err() != nil {
			return err
		}
		last = err
		pause := c.backoff.after(n)
		if refused := (*RefusedError)(nil); errors.As(err, &refused) {
			pause = max(pause, refused.RetryAfter)
		}
		if deadline, _ := ctx.Deadline(); time.Until(deadline) <= pause {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
