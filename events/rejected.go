package events

import (
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// IntegrationRejected tells the publishers of a user's connects that one of them
// changed nothing.
const IntegrationRejected = "integration.rejected"

// RejectedReason says why a connect changed nothing.
type RejectedReason string

// Reasons of integration.rejected.
const (
	// RejectedInvalid: it breaks its contract, and is a dead letter.
	RejectedInvalid RejectedReason = "invalid"
	// RejectedUnsealed: it had to be sealed. Its body is gone.
	RejectedUnsealed RejectedReason = "unsealed"
	// RejectedFailed: it could not be handled, and is a dead letter that an operator
	// may replay.
	RejectedFailed RejectedReason = "failed"
	// RejectedOlder: its accounts were connected or disconnected since, or another grant
	// has its refresh token.
	RejectedOlder RejectedReason = "older"
	// RejectedRepeated: it was published before.
	RejectedRepeated RejectedReason = "repeated"
	// RejectedNothing: it brings no token, so there is nothing to keep.
	RejectedNothing RejectedReason = "nothing_to_keep"
)

// RejectedReasons lists them all.
var RejectedReasons = []RejectedReason{RejectedInvalid, RejectedUnsealed, RejectedFailed, RejectedOlder, RejectedRepeated, RejectedNothing}

// Rejected is the data of an integration.rejected event. It holds nothing of the
// payload.
type Rejected struct {
	UserID string         `json:"userId"`
	Reason RejectedReason `json:"reason"`
	// Problem, with RejectedInvalid, names fields and rules.
	Problem string `json:"problem,omitempty"`
	// EventID is the id of the CloudEvents message that this answers, or else its
	// Nats-Msg-Id. Empty: it had neither.
	EventID string `json:"eventId,omitempty"`
	// Stream and Sequence are what JetStream acknowledged the message with.
	Stream   string `json:"stream,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`
	// DeadLetterID names the dead letter, for an operator. Empty: there is none.
	DeadLetterID string `json:"deadLetterId,omitempty"`
}

// RejectedEvent is an integration.rejected event with its CloudEvents attributes.
type RejectedEvent struct {
	// ID is the message's Nats-Msg-Id too.
	ID   string
	Time time.Time
	Data Rejected
}

// Encode returns the event as CloudEvents 1.0 JSON (structured mode).
func (e RejectedEvent) Encode() ([]byte, error) {
	return encodeCloudEvent(e.ID, IntegrationRejected, "", e.Time, e.Data)
}

// DecodeRejected reads what Encode wrote. Every error is an *InvalidError.
func DecodeRejected(body []byte) (RejectedEvent, error) {
	in, err := decodeCloudEvent(IntegrationRejected, body)
	if err != nil {
		return RejectedEvent{}, err
	}
	if in == nil || in.Type != IntegrationRejected {
		return RejectedEvent{}, invalid(IntegrationRejected, "not a CloudEvents 1.0 structured message of this type")
	}
	e := RejectedEvent{ID: in.ID, Time: in.Time}
	return e, decodeStrict(IntegrationRejected, in.Data, &e.Data)
}

// maxEventID bounds the id of an event that is repeated in another.
const maxEventID = 256

// EventID returns the id under which a publisher knows a message: that of a
// CloudEvents message in either mode, or else its Nats-Msg-Id. Empty: it has none
// that can be repeated.
func EventID(header map[string][]string, body []byte) string {
	id := HeadersOf(header).ID()
	if whole, err := object("", body); err == nil {
		var m [len(envelopeMembers)]jsontext.Value
		var r connectReader
		r.members(whole, location{}, envelopeMembers[:], m[:])
		if inside, problem := textOf(m[2]); m[0] != nil && problem == "" && inside != "" {
			id = inside
		}
	}
	if given := header["Nats-Msg-Id"]; id == "" && len(given) == 1 {
		id = given[0]
	}
	if _, found := unseen(id); found || len(id) > maxEventID || !utf8.ValidString(id) {
		return ""
	}
	return id
}
