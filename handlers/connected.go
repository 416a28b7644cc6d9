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
			in.Published = d.FirstStoredAt
			if reason, err = c.connect(ctx, in, notAfter(in.ConnectedAt, d.FirstStoredAt)); err != nil {
				return err
			}
		}
		c.report(ctx, d, in, reason)
		return nil
	}
}

// report logs and counts what became of a connect, and announces why it changed nothing;
// "": it did.
func (c *Connector) report(ctx context.Context, d *delivery, in events.Connected, reason events.RejectedReason) {
	outcome := "kept"
	switch log := tracing.Log(ctx, c.opts.Log); {
	case reason == events.RejectedOlder, reason == events.RejectedRepeated:
		outcome = string(reason)
	case in.Empty():
		outcome = "nothing_to_keep"
		log.Info("a connect brings no token: there is nothing to keep", zap.Strings("leftOut", in.LeftOut))
	case len(in.LeftOut) > 0:
		outcome = "kept_in_part"
		log.Warn("unusable parts of a connect are left out", zap.Strings("leftOut", in.LeftOut))
	}
	if reason != "" && (reason != events.RejectedRepeated || d.Attempt == 1) { // delivered again, it repeats itself
		c.opts.Rejections.publish(ctx, d, in.UserID, events.Rejected{Reason: reason})
	}
	if c.opts.Outcomes != nil {
		c.opts.Outcomes.WithLabelValues(outcome).Inc()
	}
}

// decodeConnected opens a connect if it is sealed, and decodes it. It records in the
// delivery what an erasure needs to know of a connect that is sealed and can't be decoded.
func decodeConnected(ctx context.Context, keys *ConnectKeys, cfg config.Connect, body []byte, d *delivery) (events.Connected, error) {
	m, err := events.UnwrapConnected(d.Event, body)
	switch {
	case m.JWE == "" && cfg.RequireSealed:
		// Even a malformed message may contain tokens.
		return events.Connected{}, &unsealedError{err}
	case len(body) > cfg.MaxBytes:
		return events.Connected{}, &events.InvalidError{Message: events.IntegrationConnected, Problem: "larger than connect.max_bytes"}
	case err != nil:
		return events.Connected{}, err
	case m.JWE == "":
		return m.Decode()
	}
	plaintext, err := keys.Open(ctx, m.JWE, d.StoredAt)
	if err != nil {
		d.Undecodable = errors.As(err, new(*events.InvalidError))
		return events.Connected{}, err
	}
	defer clear(plaintext)
	in, err := m.DecodeOpened(plaintext)
	if err != nil {
		d.Undecodable, d.Users = true, events.FindUsers(plaintext)
	}
	return in, err
}

// unsealedError refuses a message that had to be sealed. Its body must not be kept, not
// even in a dead letter. err is what else is wrong with the message; nil: nothing.
type unsealedError struct{ err error }

func (e *unsealedError) Error() string {
	const problem = "not sealed, which connect.require_sealed demands; its body is removed"
	if e.err != nil {
		return e.err.Error() + "; " + problem
	}
	return (&events.InvalidError{Message: events.IntegrationConnected, Problem: problem}).Error()
}
