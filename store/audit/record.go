package audit

import "time"

// Action is what was done.
type Action string

const (
	// HandedOut: a caller got tokens. Grants lists them, and those that it did not get.
	HandedOut Action = "handed_out"
	// Refused: a request was answered without a token. Outcome is the code.
	Refused Action = "refused"
	// Sealed: tokens were sealed and stored. Outcome is the cause: connect, refresh,
	// trim, recovery, reseal.
	Sealed Action = "sealed"
	// Opened: tokens were opened. Outcome is the purpose: refresh, remove, replay,
	// show.
	Opened Action = "opened"
	// Erased: stored tokens are gone. Outcome is the reason: one of token.revoked, or
	// retention, or drop.
	Erased Action = "erased"

	// Presented: a caller presented a user's code for a refresh. Outcome is the code of
	// the answer.
	Presented Action = "presented"
	// Operated: somebody acted on the operator's page. Outcome is the action with its
	// result.
	Operated Action = "operated"

	// Exported: what is kept of a user was handed out, without tokens.
	Exported Action = "exported"

	// Begin and End are the first and the last record of a chain. Lost stands for
	// records for which the queue had no room.
	Begin Action = "begin"
	End   Action = "end"
	Lost  Action = "lost"
)

// Actions are all of these.
var Actions = []Action{HandedOut, Refused, Sealed, Opened, Erased, Presented, Operated, Exported, Begin, End, Lost}

// Outcomes that are neither codes nor reasons of events.
const (
	OutcomeOK        = "ok"
	OutcomeConnect   = "connect"
	OutcomeRefresh   = "refresh"
	OutcomeTrim      = "trim"
	OutcomeRecovery  = "recovery"
	OutcomeReseal    = "reseal"
	OutcomeRemove    = "remove"
	OutcomeReplay    = "replay"
	OutcomeShow      = "show"
	OutcomeDrop      = "drop"
	OutcomeRetention = "retention"
)

// Record is one thing that was done.
type Record struct {
	// At defaults to now.
	At      time.Time `json:"at"`
	Action  Action    `json:"action"`
	Outcome string    `json:"outcome,omitempty"`
	User    string    `json:"user,omitempty"`
	Grants  []Grant   `json:"grants,omitempty"`
	// Caller sent the request; nil: there was none.
	Caller *Caller `json:"caller,omitempty"`
	// DeadLetter is the id of the dead letter that was opened or erased.
	DeadLetter string `json:"deadLetter,omitempty"`
	// Count is how many records were lost; only of Lost.
	Count int `json:"count,omitempty"`
	// Truncated: the record was too long, and lacks its account ids.
	Truncated bool `json:"truncated,omitempty"`
}

// Grant is what a record says of one grant.
type Grant struct {
	ID      string `json:"id"`
	Broker  string `json:"broker,omitempty"`
	Version int64  `json:"version,omitempty"`
	// Accounts are the ids of the accounts concerned; empty while the accounts of the
	// grant are unknown.
	Accounts []string `json:"accounts,omitempty"`
	// Code is why the tokens of these accounts were not handed out; empty: they were.
	Code string `json:"code,omitempty"`
}

// Caller is what NATS says about the sender of a request.
type Caller struct {
	// Inbox is the prefix of the reply subject: permissions decide who may subscribe.
	Inbox string `json:"inbox,omitempty"`
	// Account, User and Name are what the server states for requests that cross
	// accounts. Name is the client's own.
	Account string `json:"account,omitempty"`
	User    string `json:"user,omitempty"`
	Name    string `json:"name,omitempty"`
}
