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
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/parts"
	"github.com/latchkey/latchkey/store/streams"
)

// RecoveryName names entries of the recovery stream in metrics and dead letters.
const RecoveryName = "recovery"

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
	// Format is how the body was written before it was sealed.
	Format int64 `json:"format,omitempty"`
	// Parts are the places in the stream where Sealed.Data lies if it is too large
	// to stand here.
	Parts []uint64 `json:"parts,omitempty"`
	// Users are the tags of the users whom it names, if it names several.
	Users []string `json:"users,omitempty"`
	// BodyRemoved: the body was not kept, since it had to come sealed and did not.
	BodyRemoved bool `json:"bodyRemoved,omitempty"`
}

// Formats of bodies.
const (
	formatCompressed = 0 // by gzip; letters of earlier versions
	formatPlain      = 1 // as it came
	formatEvent      = 2 // the CloudEvents attributes of its headers, as a line of JSON, and the body as it came
)

// Binding is what the body of the dead letter is sealed to.
func (d DeadLetter) Binding() envelope.Binding {
	return envelope.Binding{Purpose: envelope.PurposeDeadLetter, Grant: d.ID, Version: d.Format}
}

// maxReason bounds what a dead letter says of why it is here, in bytes.
const maxReason = 1 << 10

// Parked is a dead letter with its place in the stream.
type Parked struct {
	DeadLetter
	Sequence uint64
	// Tag tells whom it concerns: store.UserTag of a user, the id of a grant, or
	// events.UnknownTag.
	Tag string
}

// DeadLetters parks messages, and brings them back. Only Park needs Now, NewID
// and Log; only Park and Replay need Envelope.
type DeadLetters struct {
	JS       jetstream.JetStream
	Envelope *envelope.Envelope
	// Keys open what publishers sealed; Erase needs them.
	Keys     *ConnectKeys
	Subjects events.Subjects
	Now      func() time.Time
	NewID    func() string
	Log      *zap.Logger
}

// Park seals a message and stores it among the dead letters, however large it
// is. The message may be acknowledged only after Park has returned nil.
func (p *DeadLetters) Park(ctx context.Context, message string, d *delivery, body []byte, reason string) error {
	users, err := p.users(ctx, message, d, body)
	if err != nil {
		return fmt.Errorf("parking a message: %w", err)
	}
	// What did not decode names a user at best. A data key of that user's own would
	// cost a call to KMS and a write, and whoever writes junk makes users up.
	sealer, err := p.Envelope.Sealer(ctx, d.User)
	if err != nil {
		return fmt.Errorf("parking a message: %w", err)
	}
	letter := p.letter(message, d, reason)
	plain := body
	letter.Format = formatPlain
	if d.Event != nil {
		letter.Format = formatEvent
		if plain, err = withEvent(d.Event, body); err != nil {
			return fmt.Errorf("parking a message: %w", err)
		}
		defer clear(plain)
	}
	letter.Sealed = sealer.Seal(plain, letter.Binding())
	d.named, d.letter = users, letter.ID
	return p.store(ctx, letter, p.tag(&letter, users, body))
}

// AnswerName names answers of Mesh in dead letters.
const AnswerName = "answer"

// ParkAnswer stores what an answer of Mesh about a grant left, under an id that is
// new. An erasure finds it by the grant.
func (p *DeadLetters) ParkAnswer(ctx context.Context, g *store.Grant, id string, body []byte) error {
	sealer, err := p.Envelope.Sealer(ctx, g.UserID)
	if err != nil {
		return fmt.Errorf("parking an answer: %w", err)
	}
	now := p.Now().UTC()
	letter := DeadLetter{ID: id, Message: AnswerName, Subject: "POST /api/v1/token/refresh", Reason: refresher.LeftoverReason, Attempts: 1, StoredAt: now, ParkedAt: now, Format: formatPlain}
	letter.Sealed = sealer.Seal(body, letter.Binding())
	return p.store(ctx, letter, g.ID)
}

// ParkWithoutBody tells of a message whose body may not be kept.
func (p *DeadLetters) ParkWithoutBody(ctx context.Context, message string, d *delivery, body []byte, reason string) error {
	letter := p.letter(message, d, reason)
	letter.BodyRemoved = true
	d.named, d.letter = events.FindUsers(body), letter.ID
	return p.store(ctx, letter, p.tag(&letter, d.named, body))
}

func (p *DeadLetters) letter(message string, d *delivery, reason string) DeadLetter {
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "..."
	}
	return DeadLetter{
		ID: p.NewID(), Message: message, Subject: d.Subject, Reason: reason, Attempts: d.Attempt,
		StoredAt: d.Stored.UTC(), ParkedAt: p.Now().UTC(),
	}
}

// store writes a dead letter. One that is too large for one message leaves its
// body in parts, which are written first: a letter that is seen is complete.
func (p *DeadLetters) store(ctx context.Context, letter DeadLetter, tag string) error {
	body := letter.Sealed.Data
	split := !parts.Fits(p.JS, base64.StdEncoding.EncodedLen(len(body)))
	err := error(nil)
	if !split {
		err = p.publish(ctx, letter, tag)
		split = parts.TooLarge(err)
	}
	if split {
		letter.Sealed.Data = nil
		if letter.Parts, err = parts.Write(ctx, p.JS, p.Subjects.DeadLetterPart(tag), letter.ID, letter.StoredAt, body); err == nil {
			if err = p.publish(ctx, letter, tag); parts.Refused(err) {
				parts.Tidy(ctx, p.JS, p.Subjects.DeadLetterStream(), letter.ID, letter.Parts)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("parking a message: %w", err)
	}
	tracing.Log(ctx, p.Log).Error("dead letter", zap.String("deadLetter", letter.ID), zap.String("subject", letter.Subject), zap.Int("attempts", letter.Attempts), zap.String("reason", letter.Reason))
	return nil
}

func (p *DeadLetters) publish(ctx context.Context, letter DeadLetter, tag string) error {
	encoded, err := json.Marshal(letter)
	if err != nil {
		return fmt.Errorf("encoding a dead letter: %w", err)
	}
	msg := nats.NewMsg(p.Subjects.DeadLetter(tag, letter.Message))
	msg.Data = encoded
	_, err = p.JS.PublishMsg(ctx, msg, jetstream.WithMsgID(letter.ID))
	return err
}

// All returns the dead letters, oldest first. What others wrote into the stream
// appears under an id that names its place, so that it can be dropped.
func (p *DeadLetters) All(ctx context.Context) iter.Seq2[Parked, error] { return p.From(ctx, 1) }

// From returns the dead letters likewise, from a place in the stream on.
func (p *DeadLetters) From(ctx context.Context, sequence uint64) iter.Seq2[Parked, error] {
	return func(yield func(Parked, error) bool) {
		stream, err := p.stream(ctx)
		if err != nil {
			yield(Parked{}, err)
			return
		}
		for msg, err := range streams.Messages(ctx, stream, p.Subjects.DeadLetterAll(), sequence) {
			if err != nil {
				yield(Parked{}, err)
				return
			}
			if !p.isPart(msg) && !yield(p.parked(msg), nil) {
				return
			}
		}
	}
}

// isPart reports whether a message is a part of the body of a dead letter.
func (p *DeadLetters) isPart(msg *jetstream.RawStreamMsg) bool {
	tag, _ := p.place(msg)
	return msg.Subject == p.Subjects.DeadLetterPart(tag)
}

// place takes the subject of a dead letter apart.
func (p *DeadLetters) place(msg *jetstream.RawStreamMsg) (tag, name string) {
	tag, name, _ = strings.Cut(strings.TrimPrefix(msg.Subject, strings.TrimSuffix(p.Subjects.DeadLetterAll(), ">")), ".")
	return tag, name
}

func (p *DeadLetters) parked(msg *jetstream.RawStreamMsg) Parked {
	tag, _ := p.place(msg)
	found := Parked{Sequence: msg.Sequence, Tag: tag}
	if err := json.Unmarshal(msg.Data, &found.DeadLetter); err != nil || found.ID == "" {
		found.DeadLetter = DeadLetter{
			ID: fmt.Sprintf("unreadable-%d", msg.Sequence), Subject: msg.Subject, Reason: "not written by a worker", StoredAt: msg.Time, ParkedAt: msg.Time,
		}
	}
	return found
}

func (p *DeadLetters) stream(ctx context.Context) (jetstream.Stream, error) {
	name := p.Subjects.DeadLetterStream()
	stream, err := p.JS.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("there is no stream %s here; has a worker run, with the same nats.url and nats.prefix?: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("looking for the dead letters: %w", err)
	}
	return stream, nil
}

// Drop deletes a dead letter for good, and has its bytes overwritten on disk.
func (p *DeadLetters) Drop(ctx context.Context, letter Parked) error {
	stream, err := p.stream(ctx)
	if err == nil {
		err = parts.Delete(ctx, stream, letter.ID, letter.Parts)
	}
	if err == nil { // the letter goes last: it is what leads to the parts
		err = stream.SecureDeleteMsg(ctx, letter.Sequence)
	}
	if err != nil {
		return fmt.Errorf("dropping dead letter %s: %w", letter.ID, err)
	}
	return nil
}

// Open returns the body of a dead letter in the clear. The error wraps
// parts.ErrMissing if not all of it is there; the others are those of
// envelope.Open.
func (p *DeadLetters) Open(ctx context.Context, d DeadLetter) ([]byte, error) {
	_, body, err := p.OpenMessage(ctx, d)
	return body, err
}

// OpenMessage is Open with the CloudEvents attributes that the message had in its
// headers.
func (p *DeadLetters) OpenMessage(ctx context.Context, d DeadLetter) (events.Headers, []byte, error) {
	event, body, err := p.open(ctx, d)
	if err != nil {
		return nil, nil, fmt.Errorf("opening dead letter %s: %w", d.ID, err)
	}
	return event, body, nil
}

func (p *DeadLetters) open(ctx context.Context, d DeadLetter) (events.Headers, []byte, error) {
	if len(d.Parts) > 0 {
		stream, err := p.stream(ctx)
		if err != nil {
			return nil, nil, err
		}
		if d.Sealed.Data, err = parts.Read(ctx, stream, d.ID, d.Parts); err != nil {
			return nil, nil, err
		}
	}
	body, err := p.Envelope.Open(ctx, d.Sealed, d.Binding())
	switch {
	case err != nil || d.Format == formatPlain:
		return nil, body, err
	case d.Format == formatEvent:
		return splitEvent(body)
	}
	body, err = decompress(body)
	return nil, body, err
}

// withEvent puts the attributes of a message before its body.
func withEvent(event events.Headers, body []byte) ([]byte, error) {
	line, err := json.Marshal(event)
	if err != nil {
		return nil, fmt.Errorf("encoding CloudEvents attributes: %w", err)
	}
	return slices.Concat(line, []byte("\n"), body), nil
}

func splitEvent(plain []byte) (event events.Headers, body []byte, err error) {
	line, body, _ := bytes.Cut(plain, []byte("\n"))
	if json.Unmarshal(line, &event) != nil {
		return nil, nil, errForm
	}
	return event, body, nil
}

var errForm = errors.New("the opened body is not in the form in which it was sealed")

func decompress(compressed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, errForm
	}
	return io.ReadAll(r)
}
