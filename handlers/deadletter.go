package handlers

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	ce "github.com/cloudevents/sdk-go/v2/event"
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store/envelope"
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
	// BodyRemoved: the body was not kept, since it had to come sealed and did not.
	BodyRemoved bool `json:"bodyRemoved,omitempty"`
}

// Binding is what the body of the dead letter is sealed to.
func (d DeadLetter) Binding() envelope.Binding {
	return envelope.Binding{Purpose: envelope.PurposeDeadLetter, Grant: d.ID}
}

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

// Park seals a message and stores it among the dead letters. The message may
// be acknowledged only after Park has returned nil.
func (p *DeadLetters) Park(ctx context.Context, message string, d *delivery, body []byte, reason string) error {
	sealer, err := p.Envelope.Sealer(ctx, userOf(message, d, body))
	if err != nil {
		return fmt.Errorf("parking a message: %w", err)
	}
	letter := p.letter(message, d, reason)
	compressed, err := compress(body)
	if err != nil {
		return err
	}
	letter.Sealed = sealer.Seal(compressed, letter.Binding())
	return p.store(ctx, letter, p.tag(message, d, body))
}

// ParkWithoutBody tells of a message whose body may not be kept.
func (p *DeadLetters) ParkWithoutBody(ctx context.Context, message string, d *delivery, body []byte, reason string) error {
	letter := p.letter(message, d, reason)
	letter.BodyRemoved = true
	return p.store(ctx, letter, p.tag(message, d, body))
}

func (p *DeadLetters) letter(message string, d *delivery, reason string) DeadLetter {
	return DeadLetter{
		ID: p.NewID(), Message: message, Subject: d.Subject, Reason: reason, Attempts: d.Attempt,
		StoredAt: d.Stored.UTC(), ParkedAt: p.Now().UTC(),
	}
}

func (p *DeadLetters) store(ctx context.Context, letter DeadLetter, tag string) error {
	encoded, err := json.Marshal(letter)
	if err != nil {
		return fmt.Errorf("encoding a dead letter: %w", err)
	}
	msg := nats.NewMsg(p.Subjects.DeadLetter(tag, letter.Message))
	msg.Data = encoded
	if _, err := p.JS.PublishMsg(ctx, msg, jetstream.WithMsgID(letter.ID)); err != nil {
		return fmt.Errorf("parking a message: %w", err)
	}
	tracing.Log(ctx, p.Log).Error("dead letter", zap.String("deadLetter", letter.ID), zap.String("subject", letter.Subject), zap.Int("attempts", letter.Attempts), zap.String("reason", letter.Reason))
	return nil
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
		for next := sequence; ; {
			msg, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(p.Subjects.DeadLetterAll()))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return
			}
			if err != nil {
				yield(Parked{}, fmt.Errorf("reading the dead letters: %w", err))
				return
			}
			if !yield(p.parked(msg), nil) {
				return
			}
			next = msg.Sequence + 1
		}
	}
}

func (p *DeadLetters) parked(msg *jetstream.RawStreamMsg) Parked {
	tag, _, _ := strings.Cut(strings.TrimPrefix(msg.Subject, strings.TrimSuffix(p.Subjects.DeadLetterAll(), ">")), ".")
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
	if err != nil {
		return err
	}
	if err := stream.SecureDeleteMsg(ctx, letter.Sequence); err != nil {
		return fmt.Errorf("dropping dead letter %s: %w", letter.ID, err)
	}
	return nil
}

// ErrOrigin: a dead letter does not come from a subject that workers read.
var ErrOrigin = errors.New("its message and subject are none that workers read")

// ErrBodyRemoved: a dead letter has no body to bring back.
var ErrBodyRemoved = errors.New("there is nothing to replay: its body was not sealed and was removed; have the event published again, sealed")

// Replay publishes the message of a dead letter to the subject it came from,
// and drops the dead letter once the message is stored. Replayed again, the
// message may be handled twice, which handlers bear.
func (p *DeadLetters) Replay(ctx context.Context, letter Parked) error {
	if letter.BodyRemoved {
		return fmt.Errorf("replaying dead letter %s: %w", letter.ID, ErrBodyRemoved)
	}
	stream, ok := p.origin(letter.DeadLetter)
	if !ok {
		return fmt.Errorf("replaying dead letter %s: %w", letter.ID, ErrOrigin)
	}
	body, err := p.Open(ctx, letter.DeadLetter)
	if err != nil {
		return err
	}
	msg := nats.NewMsg(letter.Subject)
	if msg.Data, err = keepTime(letter.DeadLetter, body); err != nil {
		return fmt.Errorf("replaying dead letter %s: %w", letter.ID, err)
	}
	// Without a Nats-Msg-Id: others may publish here too, and JetStream acknowledges
	// a message under an id that it has seen without storing it.
	if _, err := p.JS.PublishMsg(ctx, msg, jetstream.WithExpectStream(stream)); err != nil {
		return fmt.Errorf("replaying dead letter %s: %w", letter.ID, err)
	}
	return p.Drop(ctx, letter)
}

// Open returns the body of a dead letter in the clear.
func (p *DeadLetters) Open(ctx context.Context, d DeadLetter) ([]byte, error) {
	compressed, err := p.Envelope.Open(ctx, d.Sealed, d.Binding())
	if err == nil {
		compressed, err = decompress(compressed)
	}
	if err != nil {
		return nil, fmt.Errorf("opening dead letter %s: %w", d.ID, err)
	}
	return compressed, nil
}

// Bodies are compressed before they are sealed, since the sealed form of a
// message that is as large as NATS lets it be must still fit into a message.
func compress(body []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(body)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("compressing a message: %w", err)
	}
	return out.Bytes(), nil
}

func decompress(compressed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, errors.New("the opened body is not in the form in which it was sealed")
	}
	return io.ReadAll(r)
}

func replayID(d DeadLetter) string { return "replay-" + d.ID }

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

// keepTime has a connect or disconnect that states no time go on counting from
// its first arrival. A time that the body states outranks that of an envelope.
func keepTime(d DeadLetter, body []byte) ([]byte, error) {
	stated := map[string]string{events.IntegrationConnected: "connectedAt", events.IntegrationDisconnected: "disconnectedAt"}[d.Message]
	if stated == "" || d.StoredAt.IsZero() {
		return body, nil
	}
	// A name that comes twice is an error here: such a body must stay as it is,
	// and be refused again.
	var fields map[string]jsontext.Value
	if err := jsonv2.Unmarshal(body, &fields); err != nil || fields == nil {
		return body, nil
	}
	present := func(name string) bool { return fields[name] != nil && fields[name].Kind() != 'n' }
	if !present("specversion") {
		if present(stated) {
			return body, nil
		}
		event := ce.New(ce.CloudEventsVersionV1)
		event.SetID(replayID(d))
		event.SetSource(events.Source)
		event.SetType(d.Message)
		event.SetTime(d.StoredAt)
		if err := event.SetData(ce.ApplicationJSON, body); err != nil {
			return nil, errors.New("wrapping the message as a CloudEvent") // what the SDK says may quote it
		}
		wrapped, err := event.MarshalJSON()
		if err != nil {
			return nil, errors.New("encoding the message as a CloudEvent")
		}
		return wrapped, nil
	}
	if present("time") {
		return body, nil
	}
	fields["time"] = jsontext.Value(d.StoredAt.UTC().Format(`"` + time.RFC3339Nano + `"`))
	stamped, err := jsonv2.Marshal(fields, jsonv2.Deterministic(true))
	if err != nil {
		return nil, errors.New("encoding the message with its time")
	}
	return stamped, nil
}
