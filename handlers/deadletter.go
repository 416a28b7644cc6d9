package handlers

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/envelope"
)

// DeadLetter is a message that could not be handled. Its body is sealed, since
// it may hold tokens; everything else is for the eyes of an operator.
type DeadLetter struct {
	ID string `json:"id"`
	// Message is its name, Subject where it was found.
	Message string `json:"message"`
	Subject string `json:"subject"`
	// Reason says why it is here.
	Reason   string `json:"reason"`
	Attempts int    `json:"attempts"`
	// StoredAt is when NATS took the message in, ParkedAt when it came here.
	StoredAt time.Time     `json:"storedAt"`
	ParkedAt time.Time     `json:"parkedAt"`
	Sealed   envelope.Blob `json:"sealed"`
}

// Binding is what the body of the dead letter is sealed to.
func (d DeadLetter) Binding() envelope.Binding {
	return envelope.Binding{Purpose: envelope.PurposeDeadLetter, Grant: d.ID}
}

// DeadLetters parks messages.
type DeadLetters struct {
	JS       jetstream.JetStream
	Envelope *envelope.Envelope
	Subjects events.Subjects
	Now      func() time.Time
	NewID    func() string
	Log      *zap.Logger
}

// Park seals a message and stores it among the dead letters. The message may
// be acknowledged only after Park has returned nil.
func (p *DeadLetters) Park(ctx context.Context, message string, d *delivery, body []byte, reason string) error {
	sealer, err := p.Envelope.Sealer(ctx)
	if err != nil {
		return fmt.Errorf("parking a message: %w", err)
	}
	letter := DeadLetter{
		ID: p.NewID(), Message: message, Subject: d.Subject, Reason: reason, Attempts: d.Attempt,
		StoredAt: d.Stored.UTC(), ParkedAt: p.Now().UTC(),
	}
	letter.Sealed = sealer.Seal(body, letter.Binding())
	encoded, err := json.Marshal(letter)
	if err != nil {
		return fmt.Errorf("encoding a dead letter: %w", err)
	}
	msg := nats.NewMsg(p.Subjects.DeadLetter(message))
	msg.Data = encoded
	if _, err := p.JS.PublishMsg(ctx, msg, jetstream.WithMsgID(letter.ID)); err != nil {
		return fmt.Errorf("parking a message: %w", err)
	}
	p.Log.Error("dead letter", zap.String("deadLetter", letter.ID), zap.String("subject", d.Subject), zap.Int("attempts", d.Attempt), zap.String("reason", reason))
	return nil
}
