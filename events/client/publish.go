package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// publishAttempt bounds the wait for one acknowledgement.
const publishAttempt = 5 * time.Second

// Connected is what a backend knows when Mesh Link called
// onIntegrationConnected.
type Connected struct {
	// UserID is your own id of the user.
	UserID string
	// Payload is Mesh Link's LinkPayload, verbatim JSON.
	Payload secret.Text
	// ConnectedAt is when the tokens were obtained. It must not change when the
	// event is published again.
	ConnectedAt time.Time
	// Labels come back in events, replies and lists; see events.Connected.
	Labels map[string]string
	// Metadata goes along with each refresh; see events.Connected.
	Metadata map[string]secret.Text
}

// PublishConnected announces a connected integration. Without an error
// JetStream has stored the event, and it is Latchkey's responsibility. What
// would be refused is not published: the error is an *events.InvalidError.
func (c *Client) PublishConnected(ctx context.Context, in Connected) error {
	if in.ConnectedAt.IsZero() {
		return &events.InvalidError{Message: events.IntegrationConnected, Problem: "connectedAt: missing; lifetimes count from it"}
	}
	if !json.Valid([]byte(in.Payload.Reveal())) {
		return &events.InvalidError{Message: events.IntegrationConnected, Problem: "payload: not well-formed JSON"}
	}
	var metadata map[string]string
	for name, value := range in.Metadata {
		if metadata == nil {
			metadata = map[string]string{}
		}
		metadata[name] = value.Reveal()
	}
	body, err := json.Marshal(struct {
		UserID      string            `json:"userId"`
		ConnectedAt time.Time         `json:"connectedAt"`
		Payload     json.RawMessage   `json:"payload"`
		Labels      map[string]string `json:"labels,omitempty"`
		Metadata    map[string]string `json:"metadata,omitempty"`
	}{in.UserID, in.ConnectedAt, json.RawMessage(in.Payload.Reveal()), in.Labels, metadata})
	if err != nil { // it may quote a value
		return &events.InvalidError{Message: events.IntegrationConnected, Problem: "can't be encoded"}
	}
	if _, err := events.DecodeConnected(body); err != nil {
		return err
	}
	return c.PublishConnectedBody(ctx, body)
}

// PublishConnectedBody announces a connected integration with a body that is
// encoded already. It is not looked into.
func (c *Client) PublishConnectedBody(ctx context.Context, body []byte) error {
	return c.publish(ctx, events.IntegrationConnected, c.subjects.Connected(), body)
}

// PublishDisconnected announces that one broker or account of a user, or
// everything of the user, is to be forgotten. DisconnectedAt is required, and so is
// Everything where neither BrokerType nor AccountID is set. The errors are those of
// PublishConnected.
func (c *Client) PublishDisconnected(ctx context.Context, in events.Disconnected) error {
	if in.DisconnectedAt.IsZero() {
		return &events.InvalidError{Message: events.IntegrationDisconnected, Problem: "disconnectedAt: missing; what was connected later stays"}
	}
	body, err := json.Marshal(in)
	if err != nil {
		return &events.InvalidError{Message: events.IntegrationDisconnected, Problem: "can't be encoded"}
	}
	if _, err := events.DecodeDisconnected(body); err != nil {
		return err
	}
	return c.publish(ctx, events.IntegrationDisconnected, c.subjects.Disconnected(), body)
}

// ErrTooLarge: the message is larger than NATS, or the stream, takes.
var ErrTooLarge = errors.New("larger than NATS takes")

// publish publishes until there is an acknowledgement. Every attempt has the
// same id, so that one whose acknowledgement was lost is not stored twice.
//
// The id is random. JetStream drops a message with the id of another and
// acknowledges it all the same: whoever else may publish here and guesses an id
// could have a connect lost. Nor may the id be made of the body: the body holds
// tokens.
func (c *Client) publish(ctx context.Context, name, subject string, body []byte) error {
	id := rand.Text()
	err := c.retry(ctx, publishAttempt, passingOnPublish, func(ctx context.Context) error {
		_, err := c.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: body}, jetstream.WithMsgID(id))
		return err
	})
	if errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum) {
		err = fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	if err != nil {
		return fmt.Errorf("publishing %s: %w", name, err)
	}
	return nil
}

// passingOnPublish reports whether a publish may succeed when tried again:
// unless the connection is closed for good or the message itself is refused.
func passingOnPublish(err error) bool {
	switch {
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining), errors.Is(err, nats.ErrMaxPayload), errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum):
		return false
	}
	return true
}
