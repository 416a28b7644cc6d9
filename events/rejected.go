package events

import (
	"time"
	"unicode/utf8"
)

// IntegrationRejected is the message that a connect of a user changed nothing.
const IntegrationRejected = "integration.rejected"

// RejectedReason says why a connect changed nothing.
type RejectedReason string

// Reasons of integration.rejected.
const (
	// RejectedInvalid: it violates its contract, and is now a dead letter.
	RejectedInvalid RejectedReason = "invalid"
	// RejectedUnsealed: it should have been sealed. Its body was deleted.
	RejectedUnsealed RejectedReason = "unsealed"
	// RejectedFailed: it could not be processed, and is now a dead letter that an operator
	// can replay.
	RejectedFailed RejectedReason = "failed"
	// RejectedOlder: its accounts were connected or disconnected later, or another grant
	// has its refresh token.
	RejectedOlder RejectedReason = "older"
	// RejectedRepeated: it was published before.
	RejectedRepeated RejectedReason = "repeated"
	// RejectedNothing: it contains no token.
	RejectedNothing RejectedReason = "nothing_to_keep"
)

// RejectedReasons are all reasons.
var RejectedReasons = []RejectedReason{RejectedInvalid, RejectedUnsealed, RejectedFailed, RejectedOlder, RejectedRepeated, RejectedNothing}

// Rejected is the data of an integration.rejected event. It contains nothing of the
// payload.
type Rejected struct {
	UserID string         `json:"userId"`
	Reason RejectedReason `json:"reason"`
	// Problem, with RejectedInvalid, names fields and rules.
	Problem string `json:"problem,omitempty"`
	// EventID is the id of the rejected message: its CloudEvents id or else its
	// Nats-Msg-Id. Empty: it had neither.
	EventID string `json:"eventId,omitempty"`
	// Stream and Sequence are those in JetStream's acknowledgement of the message.
	Stream   string `json:"stream,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`
	// DeadLetterID is the id of the dead letter. Empty: there is none.
	DeadLetterID string `json:"deadLetterId,omitempty"`
}

// RejectedEvent is an integration.rejected event with its CloudEvents attributes.
type RejectedEvent struct {
	// ID is also the message's Nats-Msg-Id.
	ID string
	// Source is that of SourceOf; empty: Source.
	Source string
	Time   time.Time
	Data   Rejected
}

// Encode returns the event as CloudEvents 1.0 JSON (structured mode).
func (e RejectedEvent) Encode() ([]byte, error) {
	return encodeCloudEvent(e.ID, e.Source, IntegrationRejected, "", e.Time, e.Data)
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
	e := RejectedEvent{ID: in.ID, Source: in.Source, Time: in.Time}
	return e, decodeStrict(IntegrationRejected, in.Data, &e.Data)
}

// maxEventID limits Rejected.EventID.
const maxEventID = 256

// EventID returns the publisher's id of a message: the CloudEvents id, in either mode,
// or else the Nats-Msg-Id. Empty: it has none, or none that may be repeated.
func EventID(header map[string][]string, body []byte) string {
	id := HeadersOf(header).ID()
	if whole, err := object("", body); err == nil {
		m := new(connectReader).members(whole, location{}, envelopeMembers)
		if inside, problem := textOf(m[2]); m[0] != nil && problem == "" && inside != "" {
			id = inside
		}
	}
	if given := header["Nats-Msg-Id"]; id == "" && len(given) == 1 {
		id = given[0]
	}
	if _, found := invisible(id); found || len(id) > maxEventID || !utf8.ValidString(id) {
		return ""
	}
	return id
}
