package handlers

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// Disconnected handles integration.disconnected.
func Disconnected(c *Connector) Handler {
	return func(ctx context.Context, msg *message.Message) error {
		d := deliveryOf(msg)
		in, err := events.DecodeDisconnectedMessage(d.Event, msg.Payload)
		if err != nil {
			return err
		}
		d.User = in.UserID
		return c.Disconnect(ctx, store.Scope{User: in.UserID, Broker: in.BrokerType, Account: in.AccountID}, notAfter(in.DisconnectedAt, d.FirstStoredAt))
	}
}

// notAfter returns the time that a publisher states, but none after NATS stored the
// message: a clock that is ahead must not have its events outrank later ones.
func notAfter(stated, stored time.Time) time.Time {
	if stated.IsZero() || stored.Before(stated) && !stored.IsZero() {
		return stored
	}
	return stated
}

// RefreshDue handles refresh.due. A refresh that may not start now gets a new schedule
// instead of a place in the queue.
func RefreshDue(r *refresher.Refresher, d *refresher.Dispatcher, now func() time.Time, spread func() float64, postponed *prometheus.CounterVec) Handler {
	return func(ctx context.Context, msg *message.Message) error {
		in, err := events.DecodeRefreshDue(msg.Payload)
		if err != nil {
			return err
		}
		delivered := deliveryOf(msg)
		in.Call = delivered.Call
		d.NoteServerTime(delivered.FirstStoredAt)
		err = r.HandleDue(ctx, in)
		if later, ok := errors.AsType[*refresher.LaterError](err); ok {
			postponed.WithLabelValues(later.Why).Inc()
			at := now()
			return d.Postpone(ctx, in, at.Add(later.Spread(at, spread())))
		}
		return err
	}
}

// Recovery handles the entries of the recovery stream.
func Recovery(r *refresher.Refresher) Handler {
	return func(ctx context.Context, msg *message.Message) error { return r.Recover(ctx, msg.Payload) }
}
