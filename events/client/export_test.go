package client

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Clock replaces the clock by which keys grow old.
func Clock(now func() time.Time) Option { return func(c *Client) { c.now = now } }

// After replaces the wait until a subscription looks for streams again.
func After(after func(time.Duration) <-chan time.Time) Option {
	return func(c *Client) { c.after = after }
}

// JetStream replaces what a client asks JetStream with.
func JetStream(change func(jetstream.JetStream) jetstream.JetStream) Option {
	return func(c *Client) { c.js = change(c.js) }
}
