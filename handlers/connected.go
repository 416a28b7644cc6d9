package handlers

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
)

// Connected handles integration.connected, sealed or not.
func Connected(c *Connector, keys *ConnectKeys, cfg config.Connect) Handler {
	return func(ctx context.Context, msg *message.Message) error {
		d := deliveryOf(msg)
		in, err := decodeConnected(ctx, keys, cfg, msg.Payload, d)
		if err != nil {
			return err
		}
		d.User = in.UserID
		return c.Connect(ctx, in, notAfter(in.ConnectedAt, d.Stored))
	}
}

func decodeConnected(ctx context.Context, keys *ConnectKeys, cfg config.Connect, body []byte, d *delivery) (events.Connected, error) {
	sealed, err := events.DecodeSealedConnected(body)
	switch {
	case sealed == nil && cfg.RequireSealed:
		// Even what is no message at all may hold tokens.
		return events.Connected{}, &unsealedError{err}
	case len(body) > cfg.MaxBytes:
		return events.Connected{}, &events.InvalidError{Message: events.IntegrationConnected, Problem: "larger than connect.max_bytes"}
	case err != nil:
		return events.Connected{}, err
	case sealed == nil:
		return events.DecodeConnected(body)
	}
	plaintext, err := keys.Open(ctx, sealed.JWE, d.Taken)
	var invalid *events.InvalidError
	d.Opened = err == nil || errors.As(err, &invalid)
	if err != nil {
		return events.Connected{}, err
	}
	defer clear(plaintext)
	d.Users = events.PeekUsers(plaintext)
	return sealed.Decode(plaintext)
}

// unsealedError refuses a message that had to be sealed. Its body must not be
// kept, not even as a dead letter.
type unsealedError struct {
	// err is what else is wrong with the message, if anything is.
	err error
}

func (e *unsealedError) Error() string {
	const problem = "not sealed, which connect.require_sealed demands; its body is removed"
	if e.err != nil {
		return e.err.Error() + "; " + problem
	}
	return (&events.InvalidError{Message: events.IntegrationConnected, Problem: problem}).Error()
}
