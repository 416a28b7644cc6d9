package refresher

import (
	"fmt"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// Answer is what a refresh that succeeded brought.
type Answer struct {
	Accounts []AnsweredAccount
	// AccessToken is the deprecated field outside of Accounts; some answers fill
	// only that.
	AccessToken secret.Text
	// RefreshToken is the one that the accounts share. Empty: the old one stays.
	RefreshToken secret.Text
	// ExpiresIn and RefreshExpiresIn are the stated lifetimes; 0: not stated.
	ExpiresIn        time.Duration
	RefreshExpiresIn time.Duration
}

// AnsweredAccount is one account of an Answer.
type AnsweredAccount struct {
	ID, Name     string
	AccessToken  secret.Text
	RefreshToken secret.Text
	TokenID      secret.Text
}

// Class sorts the ways in which a refresh can fail by what is to be done.
type Class string

const (
	// Transient: try again, with growing delays.
	Transient Class = "transient"
	// RateLimited: try later; it does not count as a try.
	RateLimited Class = "rate_limited"
	// MustAct: the user has to authenticate again.
	MustAct Class = "must_act"
	// Dead: the refresh token will never be taken again.
	Dead Class = "dead"
	// BadRequest: the request was refused as malformed. Dead, unless there is
	// something left to send along.
	BadRequest Class = "bad_request"
	// Denied: Mesh refuses our own credentials. No grant is at fault.
	Denied Class = "denied"
)

// Failure is a refresh that brought no tokens. Its text is made of protocol
// constants only, never of what Mesh wrote.
type Failure struct {
	Class Class
	// Ambiguous: the request went out and the answer does not prove that the
	// refresh token is still the one we have.
	Ambiguous bool
	// Reason is what a Dead or MustAct grant's event says.
	Reason events.Reason
	// RetryAfter is how long Mesh asks to wait; 0: it did not say.
	RetryAfter time.Duration
	// Interim, with MustAct, is the access token with which the user's code completes
	// the refresh, and InterimFor how long that lasts; 0: it is not stated.
	Interim    secret.Text
	InterimFor time.Duration
	// Detail names the statuses that led here.
	Detail string
	// Err is the transport's error, if it came to that.
	Err error
}

func (f *Failure) Error() string {
	if f.Err != nil {
		return fmt.Sprintf("refresh: %s: %s: %v", f.Class, f.Detail, f.Err)
	}
	return fmt.Sprintf("refresh: %s: %s", f.Class, f.Detail)
}

func (f *Failure) Unwrap() error { return f.Err }
