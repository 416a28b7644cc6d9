package handlers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/parts"
)

// ErrOrigin: a dead letter does not come from a subject that workers read.
var ErrOrigin = errors.New("its message and subject are none that workers read")

// ErrBodyRemoved: a dead letter has no body to bring back.
var ErrBodyRemoved = errors.New("there is nothing to replay: its body was not sealed and was removed; have the event published again, sealed")

// ErrNoRoom: a message can't be published again as it was.
var ErrNoRoom = errors.New("its body leaves no room in a NATS message for the time at which it came; have the event published again, with its time")

// Replay publishes the message of a dead letter to the subject it came from,
// and drops the dead letter once the message is stored. Replayed again, the
// message may be handled twice, which handlers bear.
func (p *DeadLetters) Replay(ctx context.Context, letter Parked) error {
	return p.replay(ctx, letter, func(body []byte) ([]byte, error) { return body, nil })
}

// ReplayEverything is Replay for a disconnect that nothing narrows: it goes back in
// the form that covers all of the user.
func (p *DeadLetters) ReplayEverything(ctx context.Context, letter Parked) error {
	if letter.Message != events.IntegrationDisconnected {
		return fmt.Errorf("replaying dead letter %s: %w", letter.ID, errNoDisconnect)
	}
	return p.replay(ctx, letter, events.AddEverything)
}

var errNoDisconnect = errors.New("only a disconnect can mean everything of a user")

func (p *DeadLetters) replay(ctx context.Context, letter Parked, change func(body []byte) ([]byte, error)) error {
	if letter.BodyRemoved {
		return fmt.Errorf("replaying dead letter %s: %w", letter.ID, ErrBodyRemoved)
	}
	stream, ok := p.origin(letter.DeadLetter)
	if !ok {
		return fmt.Errorf("replaying dead letter %s: %w", letter.ID, ErrOrigin)
	}
	event, body, err := p.OpenMessage(ctx, letter.DeadLetter)
	if err != nil {
		return err
	}
	defer clear(body)
	if body, err = change(body); err != nil {
		return fmt.Errorf("replaying dead letter %s: %w", letter.ID, err)
	}
	msg := nats.NewMsg(letter.Subject)
	msg.Data = body
	for name, values := range event {
		msg.Header[name] = values
	}
	if !letter.StoredAt.IsZero() {
		msg.Header.Set(parts.HeaderStored, letter.StoredAt.UTC().Format(time.RFC3339Nano))
	}
	// Without a Nats-Msg-Id: others may publish here too, and JetStream acknowledges
	// a message under an id that it has seen without storing it.
	_, err = p.JS.PublishMsg(ctx, msg, jetstream.WithExpectStream(stream))
	if parts.TooLarge(err) {
		if !datesItself(letter.DeadLetter, event, body) {
			return fmt.Errorf("replaying dead letter %s: %w", letter.ID, ErrNoRoom)
		}
		_, err = p.JS.PublishMsg(ctx, &nats.Msg{Subject: letter.Subject, Header: nats.Header(event), Data: body})
	}
	if err != nil {
		return fmt.Errorf("replaying dead letter %s: %w", letter.ID, err)
	}
	return p.Drop(ctx, letter)
}

// firstStored returns when NATS first took a message in, which a replay states: a
// connect or disconnect that states no time goes on counting from then. Publishers,
// too, could set the header: like the time that a body states, it counts only if it
// is earlier.
func firstStored(header nats.Header, stored time.Time) time.Time {
	if at, err := time.Parse(time.RFC3339Nano, header.Get(parts.HeaderStored)); err == nil {
		return notAfter(at, stored)
	}
	return stored
}

// datesItself reports whether it makes no difference to a message when it came.
func datesItself(d DeadLetter, event events.Headers, body []byte) bool {
	switch d.Message {
	case events.IntegrationConnected:
		m, err := events.UnwrapConnected(event, body)
		if err != nil || m.JWE != "" {
			return err != nil
		}
		in, err := m.Decode()
		return err != nil || !in.ConnectedAt.IsZero()
	case events.IntegrationDisconnected:
		in, err := events.DecodeDisconnectedMessage(event, body)
		return err != nil || !in.DisconnectedAt.IsZero()
	}
	return true
}

// origin returns the stream that a dead letter came from. What a dead letter
// says in the clear is not sealed to its body: were it believed, a forged
// subject would have tokens published where anybody listens.
func (p *DeadLetters) origin(d DeadLetter) (stream string, ok bool) {
	switch d.Message {
	case events.IntegrationConnected:
		return p.Subjects.IntegrationStream(), d.Subject == p.Subjects.Connected()
	case events.IntegrationDisconnected:
		return p.Subjects.IntegrationStream(), d.Subject == p.Subjects.Disconnected()
	case events.RefreshDueName:
		for _, part := range p.Subjects.RefreshPartitions() {
			if d.Subject == part.Due || d.Subject == part.Urgent {
				return part.Stream, true
			}
		}
	case RecoveryName:
		return p.Subjects.RecoveryStream(), strings.HasPrefix(d.Subject, p.Subjects.Recovery(""))
	}
	return "", false
}
