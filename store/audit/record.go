// Package audit is the log of what was done with tokens: who was given them,
// and when they were sealed, opened and erased. It never holds a token.
//
// Every worker run writes a chain of its own: numbered messages, each with the
// hash of the one before. What was taken out or changed later shows.
package audit

import "time"

// Action is what was done.
type Action string

const (
	// HandedOut: tokens were given to whoever asked. Grants tell which, and
	// which of those asked for were not.
	HandedOut Action = "handed_out"
	// Refused: a request was answered without a token. Outcome is the code.
	Refused Action = "refused"
	// Sealed: tokens were sealed and stored. Outcome tells what brought them
	// about: connect, refresh, trim, recovery, reseal.
	Sealed Action = "sealed"
	// Opened: tokens were opened to be used. Outcome tells for what: refresh,
	// remove, replay, show.
	Opened Action = "opened"
	// Erased: stored tokens are gone. Outcome tells why: a reason of
	// token.revoked, or retention, or drop.
	Erased Action = "erased"

	// Presented: a user's code was brought for a refresh that waits for one. Outcome is
	// the code of the answer.
	Presented Action = "presented"
	// Operated: somebody acted on the operator's page. Outcome tells what was
	// done and what became of it.
	Operated Action = "operated"

	// Begin and End are the first and the last record of a chain. Lost stands
	// for records that found no room.
	Begin Action = "begin"
	End   Action = "end"
	Lost  Action = "lost"
)

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
	// At is set by the Log where it is zero.
	At      time.Time `json:"at"`
	Action  Action    `json:"action"`
	Outcome string    `json:"outcome,omitempty"`
	User    string    `json:"user,omitempty"`
	Grants  []Grant   `json:"grants,omitempty"`
	// Caller is who asked; only of requests.
	Caller *Caller `json:"caller,omitempty"`
	// DeadLetter is the id of the dead letter that was opened or erased.
	DeadLetter string `json:"deadLetter,omitempty"`
	// Count is how many records were lost; only of Lost.
	Count int `json:"count,omitempty"`
	// Truncated: the record was too long, and its account ids are left out.
	Truncated bool `json:"truncated,omitempty"`
}

// Grant is what a record says of one grant.
type Grant struct {
	ID      string `json:"id"`
	Broker  string `json:"broker,omitempty"`
	Version int64  `json:"version,omitempty"`
	// Accounts are the ids of the accounts concerned; empty while a grant's
	// accounts are not known.
	Accounts []string `json:"accounts,omitempty"`
	// Code says why these accounts were not given; empty: they were.
	Code string `json:"code,omitempty"`
}

// Caller is what NATS tells of who asked.
type Caller struct {
	// Inbox is the prefix of the subject that the answer went to: permissions
	// decide who may receive there.
	Inbox string `json:"inbox,omitempty"`
	// Account, User and Name are from the server's own word on requests that
	// cross accounts. Name is what the client calls itself.
	Account string `json:"account,omitempty"`
	User    string `json:"user,omitempty"`
	Name    string `json:"name,omitempty"`
}
