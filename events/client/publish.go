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

// publishAttempt is the time limit for one acknowledgement.
const publishAttempt = 5 * time.Second

// Connected is a connect, as a backend knows it from Mesh Link's onIntegrationConnected.
type Connected struct {
	// UserID is your own id of the user.
	UserID string
	// Payload is Mesh Link's LinkPayload, verbatim JSON.
	Payload secret.Text
	// ConnectedAt is when the tokens were obtained. Use the same value if you publish the
	// event again.
	ConnectedAt time.Time
	// Labels are in events, replies and lists; see events.Connected.
	Labels map[string]string
	// Metadata is sent with each refresh; see events.Connected.
	Metadata map[string]secret.Text
}

// PublishConnected publishes a connect. If there is no error, JetStream has stored it. A
// connect that workers would refuse is not published: the error is an
// *events.InvalidError.
func (c *Client) PublishConnected(ctx context.Context, in Connected) error {
	if in.ConnectedAt.IsZero() {
		return &events.InvalidError{Message: events.IntegrationConnected, Problem: "connectedAt: missing; lifetimes count from it"}
	}
	if !json.Valid([]byte(in.Payload.Reveal())) {
		return &events.InvalidError{Message: events.IntegrationConnected, Problem: "payload: not well-formed JSON"}
	}
	metadata := make(map[string]string, len(in.Metadata))
	for name, value := range in.Metadata {
		metadata[name] = value.Reveal()
	}
	body, err := json.Marshal(struct {
		UserID      string            `json:"userId"`
		ConnectedAt time.Time         `json:"connectedAt"`
		Payload     json.RawMessage   `json:"payload"`
		Labels      map[string]string `json:"labels,omitempty"`
		Metadata    map[string]string `json:"metadata,omitempty"`
	}{in.UserID, in.ConnectedAt, json.RawMessage(in.Payload.Reveal()), in.Labels, metadata})
	if err != nil { // the error may quote a value
		return &events.InvalidError{Message: events.IntegrationConnected, Problem: "can't be encoded"}
	}
	if !c.sealConnects { // sealing checks it, too
		if _, err := events.DecodeConnected(body); err != nil {
			return err
		}
	}
	return c.PublishConnectedBody(ctx, body)
}

// PublishConnectedBody publishes an encoded connect without checking it. With SealConnects
// it seals the body, which must then be a valid connect, neither a CloudEvents message nor
// sealed already; otherwise the error is an *events.InvalidError.
func (c *Client) PublishConnectedBody(ctx context.Context, body []byte) error {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	if c.sealConnects {
		sealed, err := c.seal(ctx, body)
		if err != nil {
			return err
		}
		body = sealed
	}
	return c.publish(ctx, events.IntegrationConnected, c.subjects.Connected(), body)
}

// PublishDisconnected publishes a disconnect of one broker or account of a user, or of
// everything. DisconnectedAt is required, and so is Everything if neither BrokerType nor
// AccountID is set. The errors are those of PublishConnected.
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

// ErrTooLarge: the message is too large for NATS or the stream.
var ErrTooLarge = errors.New("larger than NATS takes")

// publish retries until there is an acknowledgement. All attempts have the same message
// id, so that the message is stored once even if acknowledgements are lost.
//
// The id is random: JetStream acknowledges a message with a known id without storing it,
// so another publisher who guesses an id could suppress a connect. It must not be a hash
// of the body, which contains tokens.
func (c *Client) publish(ctx context.Context, name, subject string, body []byte) error {
	id := rand.Text()
	err := c.retry(ctx, publishAttempt, transientOnPublish, func(ctx context.Context) error {
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

// transientOnPublish reports whether a retry of a publish may succeed.
func transientOnPublish(err error) bool {
	return !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrConnectionDraining) &&
		!errors.Is(err, nats.ErrMaxPayload) && !errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum)
}
