package refresher

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/parts"
	"github.com/latchkey/latchkey/store/streams"
)

// An answer that can't be written to the database goes to the recovery stream, sealed.
// Any worker applies it from there when the database is back.

// recoveryEntry is the message. The user's data is in the sealed part.
type recoveryEntry struct {
	GrantID string `json:"grantId"`
	Epoch   int64  `json:"epoch"`
	// Broker is the broker type to which the entry is sealed: a newer connect may write
	// it in another case. Empty: as in the grant.
	Broker string        `json:"broker,omitempty"`
	Sealed envelope.Blob `json:"sealed"`
	// Parts are the places in the stream of a Sealed.Data that is too large for one
	// message. They belong to ID.
	Parts []uint64 `json:"parts,omitempty"`
	ID    string   `json:"id,omitempty"`
	// Spent is the fingerprint of the refresh token that the answer replaced, in case the
	// grant is gone and nobody can open the entry. Empty: none, or not known.
	Spent string `json:"spent,omitempty"`
}

// pending is an answer on its way into the database. Its JSON is what an entry seals.
type pending struct {
	// id lets JetStream drop repetitions. It is random, since JetStream drops every
	// message whose id it has seen.
	id      string
	grantID string
	epoch   int64
	Answer
	Presented   secret.Text `json:"presented"`
	ConnectedAt time.Time   `json:"connectedAt"`
	Renewed     bool        `json:"renewed"`
	Sent        time.Time   `json:"sent"`
	Beside      bool        `json:"beside,omitzero"` // the answer brought nothing that the grant uses
}

// encodeSecrets returns the JSON of what will be sealed, with secrets in the clear, for the
// caller to wipe.
func encodeSecrets(v any) ([]byte, error) {
	var encoded bytes.Buffer
	// Version 2 of the package escapes no more than it must: a token of "<" gets no larger.
	err := jsonv2.MarshalWrite(&encoded, v, jsontext.AllowInvalidUTF8(true), revealing)
	return encoded.Bytes(), err
}

// revealing encodes secrets in the clear and lifetimes in nanoseconds.
var revealing = jsonv2.WithMarshalers(jsonv2.JoinMarshalers(
	jsonv2.MarshalToFunc(func(enc *jsontext.Encoder, t secret.Text) error { return enc.WriteToken(jsontext.String(t.Reveal())) }),
	jsonv2.MarshalToFunc(func(enc *jsontext.Encoder, d time.Duration) error { return enc.WriteToken(jsontext.Int(int64(d))) }),
))

func recoveryBinding(g *store.Grant, epoch int64) envelope.Binding {
	b := g.Binding()
	b.Purpose, b.Version = envelope.PurposeRecovery, epoch
	return b
}

func (p pending) entry(s store.TokenSealer, g *store.Grant) (recoveryEntry, error) {
	encoded, err := encodeSecrets(p)
	defer clear(encoded)
	if err != nil {
		return recoveryEntry{}, errors.New("encoding a recovery entry failed") // without the error: it could quote a value
	}
	id := fmt.Sprintf("%s.%d.%s", g.ID, p.ConnectedAt.UnixMilli(), p.id) // connectedAfter reads it
	entry := recoveryEntry{GrantID: g.ID, Epoch: p.epoch, Broker: g.BrokerType, ID: id, Sealed: s.Seal(encoded, recoveryBinding(g, p.epoch))}
	if p.rotated() {
		entry.Spent = s.Key.Of(p.Presented)
	}
	return entry, nil
}

func openEntry(ctx context.Context, e *envelope.Envelope, entry recoveryEntry, g *store.Grant) (pending, error) {
	binding := recoveryBinding(g, entry.Epoch)
	if events.SameBroker(entry.Broker, g.BrokerType) {
		binding.Broker = entry.Broker
	}
	encoded, err := e.Open(ctx, entry.Sealed, binding)
	if err != nil {
		return pending{}, fmt.Errorf("opening a recovery entry of grant %s: %w", g.ID, err)
	}
	defer clear(encoded)
	p := pending{grantID: g.ID, epoch: entry.Epoch}
	if json.Unmarshal(encoded, &p) != nil {
		return pending{}, fmt.Errorf("decoding a recovery entry of grant %s: %w", g.ID, envelope.ErrSealed)
	}
	p.forget(p.Presented) // earlier releases left echoes in it
	return p, nil
}

// ErrRecoveryEntry: an entry can never be applied. It is a dead letter.
var ErrRecoveryEntry = errors.New("recovery entry can't be applied")

// Recover applies an entry of the recovery stream. It may run again, late, and in any
// order: an answer that is not newer than what is stored changes nothing. The error
// wraps ErrRecoveryEntry when another try is useless. After nil the parts of the entry
// are deleted and the caller acknowledges it.
func (r *Refresher) Recover(ctx context.Context, body []byte) error {
	entry, err := r.recover(ctx, body)
	if err == nil && len(entry.Parts) > 0 {
		parts.Tidy(ctx, r.deps.JetStream, r.deps.Subjects.RecoveryStream(), entry.ID, entry.Parts)
	}
	return err
}

// recover is Recover without deleting the parts.
func (r *Refresher) recover(ctx context.Context, body []byte) (entry recoveryEntry, err error) {
	if json.Unmarshal(body, &entry) != nil || entry.GrantID == "" {
		return entry, fmt.Errorf("%w: not the JSON expected", ErrRecoveryEntry)
	}
	// The parts are read before the grant: if somebody has applied the entry and deleted
	// them, the grant shows it.
	whole, incomplete := r.withParts(ctx, entry)
	g, err := r.deps.Store.Get(ctx, entry.GrantID)
	if errors.Is(err, store.ErrNotFound) {
		return entry, r.recordSpent(ctx, entry.Spent) // erased meanwhile: the tokens must not come back
	}
	if err != nil {
		return entry, err
	}
	if errors.Is(incomplete, parts.ErrMissing) {
		if g.Applied >= entry.Epoch {
			return entry, nil // it was applied, and is not acknowledged yet
		}
		return entry, fmt.Errorf("%w: %w", ErrRecoveryEntry, incomplete)
	}
	if incomplete != nil {
		return entry, incomplete
	}
	p, err := openEntry(ctx, r.deps.Envelope, whole, g)
	if errors.Is(err, envelope.ErrSealed) || errors.Is(err, envelope.ErrUnknownKey) {
		return entry, fmt.Errorf("%w: %w", ErrRecoveryEntry, err)
	}
	if err != nil {
		return entry, err
	}
	with, err := r.deps.Fingerprints.Sealer(ctx, g.UserID)
	if err != nil {
		return entry, err
	}
	accounts := len(g.Accounts)
	g, err = r.apply(ctx, g, p, with)
	if err != nil {
		return entry, err
	}
	r.metrics.recovered.Inc()
	r.finish(ctx, g, len(g.Accounts) != accounts)
	return entry, nil
}

// withParts returns an entry with its whole sealed data. The error wraps
// parts.ErrMissing if some is gone.
func (r *Refresher) withParts(ctx context.Context, entry recoveryEntry) (recoveryEntry, error) {
	if len(entry.Parts) == 0 {
		return entry, nil
	}
	stream, err := r.deps.JetStream.Stream(ctx, r.deps.Subjects.RecoveryStream())
	if err == nil {
		entry.Sealed.Data, err = parts.Read(ctx, stream, entry.ID, entry.Parts)
	}
	if err != nil {
		return entry, fmt.Errorf("reading the recovery entry of grant %s: %w", entry.GrantID, err)
	}
	return entry, nil
}

func (r *Refresher) rescue(ctx context.Context, g *store.Grant, p pending, with store.TokenSealer) error {
	entry, err := p.entry(with, g)
	if err != nil {
		return err
	}
	if sealed := entry.Sealed.Data; !parts.Fits(r.deps.JetStream, base64.StdEncoding.EncodedLen(len(sealed))) {
		entry.Sealed.Data = nil
		if entry.Parts, err = parts.Write(ctx, r.deps.JetStream, r.deps.Subjects.RecoveryPart(g.ID), entry.ID, p.Sent, sealed); err != nil {
			return fmt.Errorf("writing to the recovery stream: %w", err)
		}
	}
	body, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("encoding a recovery entry: %w", err)
	}
	msg := nats.NewMsg(r.deps.Subjects.Recovery(g.ID))
	msg.Data = body
	tracing.FromContext(ctx).Inject(msg.Header)
	ack, err := r.deps.JetStream.PublishMsg(ctx, msg, jetstream.WithMsgID(entry.ID))
	if len(entry.Parts) > 0 && (err == nil && ack.Duplicate || parts.Refused(err)) {
		parts.Tidy(ctx, r.deps.JetStream, r.deps.Subjects.RecoveryStream(), entry.ID, entry.Parts)
	}
	if err != nil {
		return fmt.Errorf("writing to the recovery stream: %w", err)
	}
	r.metrics.rescued.Inc()
	r.record(audit.Sealed, audit.OutcomeRecovery, g)
	return nil
}

// recoverFirst applies everything that the recovery stream holds of a grant, before its
// refresh token is presented again.
func (r *Refresher) recoverFirst(ctx context.Context, grantID string) error {
	stream, err := r.deps.JetStream.Stream(ctx, r.deps.Subjects.RecoveryStream())
	if err != nil {
		return fmt.Errorf("looking into the recovery stream: %w", err)
	}
	for msg, err := range streams.Messages(ctx, stream, r.deps.Subjects.Recovery(grantID), 1) {
		if err != nil {
			return err
		}
		// The entry stays for its consumer, and its parts with it.
		if _, err := r.recover(ctx, msg.Data); err != nil {
			return err
		}
	}
	return nil
}

// RecoveryKeys returns how many recovery entries are sealed under each data key.
func RecoveryKeys(ctx context.Context, js jetstream.JetStream, subjects events.Subjects) (map[string]int, error) {
	stream, err := js.Stream(ctx, subjects.RecoveryStream())
	if err != nil {
		return nil, fmt.Errorf("looking for the recovery stream: %w", err)
	}
	keys := map[string]int{}
	for msg, err := range streams.Messages(ctx, stream, subjects.RecoveryAll(), 1) {
		if err != nil {
			return nil, err
		}
		var entry recoveryEntry
		if json.Unmarshal(msg.Data, &entry) == nil && entry.Sealed.KeyID != "" { // all else no worker can apply
			keys[entry.Sealed.KeyID]++
		}
	}
	return keys, nil
}
