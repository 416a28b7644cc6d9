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

// ErrOrigin: a dead letter is not from a subject that workers read.
var ErrOrigin = errors.New("workers read no such message on its subject")

// ErrBodyRemoved: a dead letter has no body to replay.
var ErrBodyRemoved = errors.New("there is nothing to replay: its body was not sealed and was removed; have the event published again, sealed")

// ErrNoRoom: a message can't be published again as it was.
var ErrNoRoom = errors.New("its body leaves no room in a NATS message for the time at which it came; have the event published again, with its time")

// Replay publishes the message of a dead letter to the subject that it came from, and
// drops the dead letter once the message is stored. If that fails, a second Replay may have
// the message handled twice, which handlers allow for.
func (p *DeadLetters) Replay(ctx context.Context, letter ParkedLetter) error {
	return p.replay(ctx, letter, func(body []byte) ([]byte, error) { return body, nil })
}

// ReplayEverything is Replay for a disconnect that names only a user: it is published in
// the form that covers everything of the user.
func (p *DeadLetters) ReplayEverything(ctx context.Context, letter ParkedLetter) error {
	if letter.Message != events.IntegrationDisconnected {
		return fmt.Errorf("replaying dead letter %s: %w", letter.ID, errNoDisconnect)
	}
	return p.replay(ctx, letter, events.AddEverything)
}

var errNoDisconnect = errors.New("only a disconnect can mean everything of a user")

func (p *DeadLetters) replay(ctx context.Context, letter ParkedLetter, change func(body []byte) ([]byte, error)) error {
	if letter.BodyRemoved {
		return fmt.Errorf("replaying dead letter %s: %w", letter.ID, ErrBodyRemoved)
	}
	stream, ok := p.origin(letter.DeadLetter)
	if !ok {
		return fmt.Errorf("replaying dead letter %s: %w", letter.ID, ErrOrigin)
	}
	event, body, err := p.open(ctx, letter.DeadLetter)
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
	// Without a Nats-Msg-Id: others may publish here too, and JetStream does not store a
	// message with an id that it has seen, but acknowledges it.
	_, err = p.opts.JetStream.PublishMsg(ctx, msg, jetstream.WithExpectStream(stream))
	if parts.TooLarge(err) {
		if !datesItself(letter.DeadLetter, event, body) {
			return fmt.Errorf("replaying dead letter %s: %w", letter.ID, ErrNoRoom)
		}
		_, err = p.opts.JetStream.PublishMsg(ctx, &nats.Msg{Subject: letter.Subject, Header: nats.Header(event), Data: body})
	}
	if err != nil {
		return fmt.Errorf("replaying dead letter %s: %w", letter.ID, err)
	}
	return p.Drop(ctx, letter)
}

// firstStored returns when NATS first stored a message, which a replay states in a header:
// a connect or disconnect without a time of its own counts from then. Publishers could set
// the header too. Like the time in a body, it counts only if it is earlier.
func firstStored(header nats.Header, stored time.Time) time.Time {
	if at, err := time.Parse(time.RFC3339Nano, header.Get(parts.HeaderStored)); err == nil {
		return notAfter(at, stored)
	}
	return stored
}

// datesItself reports whether the time when NATS stored a message makes no difference.
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

// origin returns the stream that a dead letter came from. Its subject is not sealed to its
// body: a forged one must not have tokens published where anybody listens.
func (p *DeadLetters) origin(d DeadLetter) (stream string, ok bool) {
	switch d.Message {
	case events.IntegrationConnected:
		return p.opts.Subjects.IntegrationStream(), d.Subject == p.opts.Subjects.Connected()
	case events.IntegrationDisconnected:
		return p.opts.Subjects.IntegrationStream(), d.Subject == p.opts.Subjects.Disconnected()
	case events.RefreshDueName:
		for _, part := range p.opts.Subjects.RefreshPartitions() {
			if d.Subject == part.Due || d.Subject == part.Urgent {
				return part.Stream, true
			}
		}
	case RecoveryName:
		return p.opts.Subjects.RecoveryStream(), strings.HasPrefix(d.Subject, p.opts.Subjects.Recovery(""))
	}
	return "", false
}
