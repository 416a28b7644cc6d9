package handlers

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/parts"
)

// RecoveryName names entries of the recovery stream in metrics and dead letters.
const RecoveryName = "recovery"

// DeadLetter is a message that could not be handled. Its body is sealed, since it may
// contain tokens; an operator reads the rest.
type DeadLetter struct {
	ID       string `json:"id"`
	Message  string `json:"message"` // its name
	Subject  string `json:"subject"`
	Reason   string `json:"reason"`
	Attempts int    `json:"attempts"`
	// StoredAt is when NATS stored the message, ParkedAt when it became a dead letter.
	StoredAt time.Time     `json:"storedAt"`
	ParkedAt time.Time     `json:"parkedAt"`
	Sealed   envelope.Blob `json:"sealed"`
	// Format is how the body was written before it was sealed.
	Format int64 `json:"format,omitempty"`
	// Parts are the sequences of the messages that contain a Sealed.Data that is too
	// large for this one.
	Parts []uint64 `json:"parts,omitempty"`
	// Users are the tags of the users that it names, if it names several.
	Users []string `json:"users,omitempty"`
	// BodyRemoved: the body was not sealed, though connect.require_sealed demands that.
	BodyRemoved bool `json:"bodyRemoved,omitempty"`
	// Replayed: the message was a dead letter before, was replayed, and failed again.
	Replayed bool `json:"replayed,omitempty"`
}

const (
	formatCompressed = 0 // by gzip, in earlier releases
	formatPlain      = 1 // as it came
	formatEvent      = 2 // the CloudEvents attributes of its headers as a line of JSON, then the body as it came
)

// Binding is what the body is sealed to.
func (d DeadLetter) Binding() envelope.Binding {
	return envelope.Binding{Purpose: envelope.PurposeDeadLetter, Grant: d.ID, Version: d.Format}
}

const maxReason = 1 << 10 // bytes

// ParkedLetter is a dead letter with its place in the stream.
type ParkedLetter struct {
	DeadLetter
	Sequence uint64
	// Tag is the part of its subject by which an erasure finds it: store.UserTag of a
	// user, the id of a grant, events.SeveralTag or events.UnknownTag.
	Tag string
}

// DeadLetters parks messages, and replays them.
type DeadLetters struct{ opts DeadLettersOptions }

// DeadLettersOptions are the parts of DeadLetters.
type DeadLettersOptions struct {
	JetStream jetstream.JetStream
	Subjects  events.Subjects
	// Envelope opens and seals bodies. Nil: dead letters are only listed and dropped.
	Envelope *envelope.Envelope
	// Now, NewID and Log serve to park and to erase. A command needs none of them.
	Now   func() time.Time
	NewID func() string
	Log   *zap.Logger
	// Keys open the connects that publishers sealed; nil: none are sealed.
	Keys *ConnectKeys
	// Grants returns the grants of a user. Nil: it is not known which dead letters concern a user.
	Grants func(ctx context.Context, user string) ([]*store.Grant, error)
}

// NewDeadLetters returns the dead letters of an installation.
func NewDeadLetters(o DeadLettersOptions) (*DeadLetters, error) {
	required := []string{"JetStream"}
	if o.Now != nil || o.NewID != nil || o.Log != nil || o.Keys != nil { // to park messages, too
		required = append(required, "Envelope", "Now", "NewID", "Log")
	}
	if err := options.Require("the dead letters", o, required...); err != nil {
		return nil, err
	}
	return &DeadLetters{o}, nil
}

// Park seals a message and stores it as a dead letter, however large it is. The caller
// acknowledges the message only after Park has returned nil.
func (p *DeadLetters) Park(ctx context.Context, message string, d *delivery, body []byte, reason string) error {
	users, err := p.users(ctx, message, d, body)
	if err != nil {
		return fmt.Errorf("parking a message: %w", err)
	}
	// Junk names users at will. A data key for each would cost a call to KMS and a write,
	// so only what decoded is sealed by a key of its user.
	sealer, err := p.opts.Envelope.Sealer(ctx, d.User)
	if err != nil {
		return fmt.Errorf("parking a message: %w", err)
	}
	letter := p.letter(message, d, reason)
	plain := body
	letter.Format = formatPlain
	if d.Event != nil {
		letter.Format = formatEvent
		line, _ := json.Marshal(d.Event) // texts only
		plain = slices.Concat(line, []byte("\n"), body)
		defer clear(plain)
	}
	letter.Sealed = sealer.Seal(plain, letter.Binding())
	d.named, d.letter = users, letter.ID
	tag := p.tag(&letter, users, body)
	return p.store(ctx, letter, tag)
}

// AnswerName names answers of Mesh in dead letters.
const AnswerName = "answer"

// ParkAnswer stores the unusable rest of an answer of Mesh about a grant, under a new id.
// An erasure finds it by the grant.
func (p *DeadLetters) ParkAnswer(ctx context.Context, g *store.Grant, id string, body []byte) error {
	sealer, err := p.opts.Envelope.Sealer(ctx, g.UserID)
	if err != nil {
		return fmt.Errorf("parking an answer: %w", err)
	}
	now := p.opts.Now().UTC()
	letter := DeadLetter{ID: id, Message: AnswerName, Subject: "POST /api/v1/token/refresh", Reason: refresher.LeftoverReason, Attempts: 1, StoredAt: now, ParkedAt: now, Format: formatPlain}
	letter.Sealed = sealer.Seal(body, letter.Binding())
	return p.store(ctx, letter, g.ID)
}

// ParkWithoutBody stores a dead letter without the body of its message.
func (p *DeadLetters) ParkWithoutBody(ctx context.Context, message string, d *delivery, body []byte, reason string) error {
	letter := p.letter(message, d, reason)
	letter.BodyRemoved = true
	d.named, d.letter = events.FindUsers(body), letter.ID
	tag := p.tag(&letter, d.named, body)
	return p.store(ctx, letter, tag)
}

func (p *DeadLetters) letter(message string, d *delivery, reason string) DeadLetter {
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "..."
	}
	return DeadLetter{
		ID: p.opts.NewID(), Message: message, Subject: d.Subject, Reason: reason, Attempts: d.Attempt,
		StoredAt: d.FirstStoredAt.UTC(), ParkedAt: p.opts.Now().UTC(), Replayed: d.Replayed,
	}
}

// store writes a dead letter. If it is too large for one message, its body is written in
// parts first, so that every dead letter in the stream is complete.
func (p *DeadLetters) store(ctx context.Context, letter DeadLetter, tag string) error {
	body := letter.Sealed.Data
	split := !parts.Fits(p.opts.JetStream, base64.StdEncoding.EncodedLen(len(body)))
	var err error
	if !split {
		err = p.publish(ctx, letter, tag)
		split = parts.TooLarge(err)
	}
	if split {
		letter.Sealed.Data = nil
		if letter.Parts, err = parts.Write(ctx, p.opts.JetStream, p.opts.Subjects.DeadLetterPart(tag), letter.ID, letter.StoredAt, body); err == nil {
			if err = p.publish(ctx, letter, tag); parts.Refused(err) {
				parts.Tidy(ctx, p.opts.JetStream, p.opts.Subjects.DeadLetterStream(), letter.ID, letter.Parts)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("parking a message: %w", err)
	}
	tracing.Log(ctx, p.opts.Log).Error("dead letter", zap.String("deadLetter", letter.ID), zap.String("subject", letter.Subject), zap.Int("attempts", letter.Attempts), zap.String("reason", letter.Reason))
	return nil
}

func (p *DeadLetters) publish(ctx context.Context, letter DeadLetter, tag string) error {
	encoded, err := json.Marshal(letter)
	if err != nil {
		return fmt.Errorf("encoding a dead letter: %w", err)
	}
	msg := nats.NewMsg(p.opts.Subjects.DeadLetter(tag, letter.Message))
	msg.Data = encoded
	_, err = p.opts.JetStream.PublishMsg(ctx, msg, jetstream.WithMsgID(letter.ID))
	return err
}

// Count returns how many dead letters there are.
func (p *DeadLetters) Count(ctx context.Context) (uint64, error) {
	stream, err := p.stream(ctx)
	if err != nil {
		return 0, err
	}
	return parts.CountWithoutParts(ctx, stream, p.opts.Subjects.DeadLetterParts())
}

// ErrNoLetter: there is no such dead letter, or no longer.
var ErrNoLetter = errors.New("no such dead letter")

// At returns the dead letter with an id at a sequence in the stream, or ErrNoLetter.
func (p *DeadLetters) At(ctx context.Context, sequence uint64, id string) (ParkedLetter, error) {
	stream, err := p.stream(ctx)
	if err != nil {
		return ParkedLetter{}, err
	}
	msg, err := stream.GetMsg(ctx, max(sequence, 1))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound), err == nil && (p.isPart(msg) || p.parked(msg).ID != id):
		return ParkedLetter{}, ErrNoLetter
	case err != nil:
		return ParkedLetter{}, fmt.Errorf("reading a dead letter: %w", err)
	}
	return p.parked(msg), nil
}

// isPart reports whether a message is a part of the body of a dead letter.
func (p *DeadLetters) isPart(msg *jetstream.RawStreamMsg) bool {
	return msg.Subject == p.opts.Subjects.DeadLetterPart(p.tagOf(msg))
}

func (p *DeadLetters) tagOf(msg *jetstream.RawStreamMsg) string {
	tag, _, _ := strings.Cut(strings.TrimPrefix(msg.Subject, strings.TrimSuffix(p.opts.Subjects.DeadLetterAll(), ">")), ".")
	return tag
}

func (p *DeadLetters) parked(msg *jetstream.RawStreamMsg) ParkedLetter {
	found := ParkedLetter{Sequence: msg.Sequence, Tag: p.tagOf(msg)}
	if err := json.Unmarshal(msg.Data, &found.DeadLetter); err != nil || found.ID == "" {
		found.DeadLetter = DeadLetter{
			ID: fmt.Sprintf("unreadable-%d", msg.Sequence), Subject: msg.Subject, Reason: "not written by a worker", StoredAt: msg.Time, ParkedAt: msg.Time,
		}
	}
	return found
}

func (p *DeadLetters) stream(ctx context.Context) (jetstream.Stream, error) {
	name := p.opts.Subjects.DeadLetterStream()
	stream, err := p.opts.JetStream.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("there is no stream %s here; has a worker run, with the same nats.url and nats.prefix?: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("looking for the dead letters: %w", err)
	}
	return stream, nil
}

// Drop deletes a dead letter for good, and has its bytes overwritten on disk.
func (p *DeadLetters) Drop(ctx context.Context, letter ParkedLetter) error {
	stream, err := p.stream(ctx)
	if err == nil {
		err = parts.Delete(ctx, stream, letter.ID, letter.Parts)
	}
	if err == nil { // the letter last, since it says where the parts are
		err = stream.SecureDeleteMsg(ctx, letter.Sequence)
	}
	if err != nil {
		return fmt.Errorf("dropping dead letter %s: %w", letter.ID, err)
	}
	return nil
}

// Open returns the body of a dead letter in the clear. The error wraps parts.ErrMissing
// if some of it is missing; other errors are those of envelope.Open.
func (p *DeadLetters) Open(ctx context.Context, d DeadLetter) ([]byte, error) {
	_, body, err := p.open(ctx, d)
	return body, err
}

// open is Open with the CloudEvents attributes that the message had in its headers.
func (p *DeadLetters) open(ctx context.Context, d DeadLetter) (event events.Headers, body []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("opening dead letter %s: %w", d.ID, err)
		}
	}()
	if len(d.Parts) > 0 {
		stream, err := p.stream(ctx)
		if err != nil {
			return nil, nil, err
		}
		if d.Sealed.Data, err = parts.Read(ctx, stream, d.ID, d.Parts); err != nil {
			return nil, nil, err
		}
	}
	body, err = p.opts.Envelope.Open(ctx, d.Sealed, d.Binding())
	switch {
	case err != nil || d.Format == formatPlain:
		return nil, body, err
	case d.Format == formatEvent:
		line, body, _ := bytes.Cut(body, []byte("\n"))
		if json.Unmarshal(line, &event) != nil {
			return nil, nil, errFormat
		}
		return event, body, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, nil, errFormat
	}
	if body, err = io.ReadAll(r); err != nil {
		clear(body)
		return nil, nil, errFormat
	}
	return nil, body, nil
}

var errFormat = errors.New("the opened body is not in the form in which it was sealed")
