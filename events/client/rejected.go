package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/latchkey/latchkey/events"
)

// Rejections calls handle for every connect of the users that changed nothing, until ctx
// ends; no users means all. It receives no earlier events; these are in the stream of
// lifecycle events. Messages that are no such event go to OnError. With several users
// several goroutines call handle at once.
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
	<-ctx.Done()
	return nil
}
