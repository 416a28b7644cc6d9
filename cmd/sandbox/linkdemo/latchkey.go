package linkdemo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
)

// answerTimeout is how long a request for tokens may take: a little longer than
// a worker waits for refreshes.
const answerTimeout = 30 * time.Second

// latchkey is all that a backend needs of Latchkey.
type latchkey struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	subjects events.Subjects
}

func dial(url string, subjects events.Subjects) (latchkey, error) {
	nc, err := nats.Connect(url, nats.Name("linkdemo"), nats.CustomInboxPrefix("_INBOX_linkdemo"), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort())
	if err != nil {
		return latchkey{}, fmt.Errorf("connecting to NATS: %w", err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return latchkey{}, fmt.Errorf("setting up JetStream: %w", err)
	}
	return latchkey{nc, js, subjects}, nil
}

// connected announces what Link handed over, as it is. When it returns nil,
// JetStream has it. What a worker would refuse is not sent: the error is then an
// *events.InvalidError.
func (l latchkey) connected(ctx context.Context, userID string, payload json.RawMessage, at time.Time) error {
	body, err := json.Marshal(struct {
		UserID      string          `json:"userId"`
		ConnectedAt time.Time       `json:"connectedAt"`
		Payload     json.RawMessage `json:"payload"`
	}{userID, at, payload})
	if err != nil {
		return errors.New("encoding a connected event failed") // the cause may quote the payload
	}
	if _, err := events.DecodeConnected(body); err != nil {
		return err
	}
	if _, err := l.js.Publish(ctx, l.subjects.Connected(), body); err != nil {
		return fmt.Errorf("publishing a connected event: %w", err)
	}
	return nil
}

// refused is a request for tokens that yields none.
type refused struct {
	Code        string                      `json:"code"`
	Unavailable []events.UnavailableAccount `json:"unavailable"`
}

func (r *refused) Error() string { return "no tokens: " + r.Code }

// tokens asks for all current tokens of a user. minTTL is the least life they
// must have left; nil leaves that to the worker. A refusal is a *refused.
func (l latchkey) tokens(ctx context.Context, userID string, minTTL *int64) (events.TokenReply, error) {
	body, err := json.Marshal(events.TokenRequest{UserID: userID, MinTTLSeconds: minTTL})
	if err != nil {
		return events.TokenReply{}, fmt.Errorf("encoding a token request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	msg, err := l.nc.RequestWithContext(ctx, l.subjects.TokenGet(userID), body)
	if err != nil { // no worker, or none in time
		return events.TokenReply{}, &refused{Code: events.CodeBusy}
	}
	if code := msg.Header.Get("Nats-Service-Error"); code != "" {
		r := &refused{}
		_ = json.Unmarshal(msg.Data, r) // the header says enough
		r.Code = code
		return events.TokenReply{}, r
	}
	return events.DecodeTokenReply(msg.Data)
}

// follow delivers the lifecycle events of one user until the returned function
// is called. It returns when nothing that follows can be missed.
func (l latchkey) follow(userID string, deliver func(events.LifecycleEvent)) (stop func(), err error) {
	var subs []*nats.Subscription
	stop = func() {
		for _, s := range subs {
			_ = s.Unsubscribe()
		}
	}
	for _, kind := range events.LifecycleKinds {
		s, err := l.nc.Subscribe(l.subjects.Lifecycle(kind, userID), func(m *nats.Msg) {
			if e, err := events.DecodeLifecycle(m.Data); err == nil {
				deliver(e)
			}
		})
		if err != nil {
			stop()
			return nil, fmt.Errorf("subscribing to a user's events: %w", err)
		}
		subs = append(subs, s)
	}
	if err := l.nc.Flush(); err != nil {
		stop()
		return nil, fmt.Errorf("subscribing to a user's events: %w", err)
	}
	return stop, nil
}
