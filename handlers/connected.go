package handlers

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
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
		reason := events.RejectedNothing
		if !in.Empty() {
			at := notAfter(in.ConnectedAt, d.Stored)
			in.Published = d.Stored
			var err error
			if reason, err = c.connect(ctx, in, at); err != nil {
				return err
			}
		}
		c.tell(ctx, d, in, reason)
		return nil
	}
}

// tell logs, counts and announces what became of a connect. reason says why it
// changed nothing; "": it did.
func (c *Connector) tell(ctx context.Context, d *delivery, in events.Connected, reason events.RejectedReason) {
	outcome := "kept"
	switch log := tracing.Log(ctx, c.Log); {
	case reason == events.RejectedOlder, reason == events.RejectedRepeated:
		outcome = string(reason)
	case in.Empty():
		outcome = "nothing_to_keep"
		log.Info("a connect brings no token: there is nothing to keep", zap.Strings("leftOut", in.LeftOut))
	case len(in.LeftOut) > 0:
		outcome = "kept_in_part"
		log.Warn("what is unusable in a connect is left out", zap.Strings("leftOut", in.LeftOut))
	}
	if reason != "" && (reason != events.RejectedRepeated || d.Attempt == 1) { // delivered again, it repeats itself
		c.Rejections.tell(ctx, d, in.UserID, events.Rejected{Reason: reason})
	}
	if c.Outcomes != nil {
		c.Outcomes.WithLabelValues(outcome).Inc()
	}
}

func decodeConnected(ctx context.Context, keys *ConnectKeys, cfg config.Connect, body []byte, d *delivery) (events.Connected, error) {
	m, err := events.UnwrapConnected(d.Event, body)
	switch {
	case m.JWE == "" && cfg.RequireSealed:
		// Even what is no message at all may hold tokens.
		return events.Connected{}, &unsealedError{err}
	case len(body) > cfg.MaxBytes:
		return events.Connected{}, &events.InvalidError{Message: events.IntegrationConnected, Problem: "larger than connect.max_bytes"}
	case err != nil:
		return events.Connected{}, err
	case m.JWE == "":
		return m.Decode()
	}
	plaintext, err := keys.Open(ctx, m.JWE, d.Taken)
	var invalid *events.InvalidError
	d.Opened = err == nil || errors.As(err, &invalid)
	if err != nil {
		return events.Connected{}, err
	}
	defer clear(plaintext)
	d.Users = events.FindUsers(plaintext)
	return m.DecodeOpened(plaintext)
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
