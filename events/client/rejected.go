package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/latchkey/latchkey/events"
)

// Rejections calls handle for every connect of the users that changed nothing, until ctx
// ends; no users means all. It receives no earlier events; these are in the stream of
// lifecycle events. Messages that are no such event go to OnError. With several users
// several goroutines call handle at once. If NATS refuses a subscription, at once or when
// a permission is taken away, the error wraps nats.ErrPermissionViolation and names the subject.
func (c *Client) Rejections(ctx context.Context, users []string, handle func(events.RejectedEvent)) (err error) {
	subjects := []string{c.subjects.RejectedAll()}
	if len(users) > 0 {
		subjects = nil
	}
	for _, user := range users {
		if err := events.CheckUserID(user); err != nil {
			return fmt.Errorf("%w: %w", ErrSubscription, err)
		}
		subjects = append(subjects, c.subjects.Rejected(user))
	}
	refused := c.refusals(subjects)
	for _, subject := range subjects {
		sub, err := c.nc.Subscribe(subject, func(msg *nats.Msg) {
			e, err := events.DecodeRejected(msg.Data)
			if err == nil && c.subjects.Rejected(e.Data.UserID) != msg.Subject {
				err = errors.New("a message about another user than its subject says")
			}
			if err != nil {
				c.onError(err)
				return
			}
			handle(e)
		})
		if err != nil {
			return fmt.Errorf("subscribing to rejected connects: %w", err)
		}
		defer func() { _ = sub.Unsubscribe() }() // it ends with the connection too
	}
	for {
		if err := refused(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// refusalsEvery is how often the client looks whether NATS has ended a subscription.
const refusalsEvery = time.Second

// refusals returns a function that asks NATS whether it has refused to subscribe to one of the
// subjects since. NATS says so by an error of the connection, which tells the connection's
// error handler and nobody else.
func (c *Client) refusals(subjects []string) func(context.Context) error {
	before := c.nc.LastError()
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, refusalsEvery)
		defer cancel()
		// What NATS says of a subscription comes before its answer to this. Where the
		// connection is lost there is no answer.
		_ = c.nc.FlushWithContext(ctx)
		if err := c.nc.LastError(); err != before && errors.Is(err, nats.ErrPermissionViolation) { //nolint:errorlint // whether it is a new one
			for _, subject := range subjects {
				if strings.Contains(err.Error(), `Subscription to "`+subject+`"`) {
					return fmt.Errorf("subscribing to rejected connects: %w", err)
				}
			}
		}
		<-ctx.Done()
		return nil
	}
}
