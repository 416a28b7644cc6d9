package view

import (
	"time"

	"github.com/latchkey/latchkey/handlers"
)

// DeadLetter is a dead letter without its body.
type DeadLetter struct {
	ID       string    `json:"id"`
	Message  string    `json:"message"`
	Subject  string    `json:"subject"`
	Reason   string    `json:"reason"`
	Attempts int       `json:"attempts"`
	StoredAt time.Time `json:"storedAt"`
	ParkedAt time.Time `json:"parkedAt"`
	// DataKey names the data key that sealed the body.
	DataKey string `json:"dataKey"`
	// BodyRemoved: there is no body, and nothing to replay.
	BodyRemoved bool `json:"bodyRemoved,omitempty"`
	// Replayed: it failed again after a replay.
	Replayed bool   `json:"replayed,omitempty"`
	Sequence uint64 `json:"sequence"`
}

// OfDeadLetter returns the view of a dead letter.
func OfDeadLetter(l handlers.ParkedLetter) DeadLetter {
	return DeadLetter{
		ID: l.ID, Message: l.Message, Subject: l.Subject, Reason: l.Reason, Attempts: l.Attempts,
		StoredAt: l.StoredAt, ParkedAt: l.ParkedAt, DataKey: l.Sealed.KeyID, BodyRemoved: l.BodyRemoved, Replayed: l.Replayed, Sequence: l.Sequence,
	}
}

// DeadLetterReason says how many dead letters of a message there are for a reason.
type DeadLetterReason struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Count   int    `json:"count"`
	// Oldest and Newest say when they were parked.
	Oldest time.Time `json:"oldest"`
	Newest time.Time `json:"newest"`
}

// OfReasonTally returns the view of a tally.
func OfReasonTally(t handlers.ReasonTally) DeadLetterReason {
	return DeadLetterReason{Reason: t.Reason, Message: t.Message, Count: t.Letters, Oldest: t.Oldest, Newest: t.Newest}
}
