package refresher

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// Answer is what a refresh brought, as Mesh wrote it. The JSON names are those of the
// recovery stream.
type Answer struct {
	// Accounts are the entries of "brokerAccountTokens" in their order, with or
	// without the name of an account.
	Accounts []AnsweredAccount `json:"accounts"`
	// The deprecated fields beside Accounts; some answers fill only these.
	AccessToken  secret.Text `json:"accessToken"`
	RefreshToken secret.Text `json:"refreshToken"`
	// Unplaced are tokens that stand elsewhere.
	Unplaced []UnplacedToken `json:"loose,omitempty"`
	// ExpiresIn and RefreshExpiresIn are the stated lifetimes; 0: not stated.
	ExpiresIn        time.Duration `json:"expiresIn"`
	RefreshExpiresIn time.Duration `json:"refreshExpiresIn"`
	// Rest is the answer itself, if there may be tokens in it that could not be read.
	Rest secret.Text `json:"rest,omitzero"`
	// Doubtful: what speaks for tokens in Rest may as well be a page of a gateway.
	Doubtful bool `json:"doubtful,omitzero"`
	// Partial: the answer was cut off or is damaged. It may have brought more.
	Partial bool `json:"partial,omitzero"`
	// Contradicts is what the statuses say, if that speaks against tokens.
	Contradicts *Failure `json:"-"`
}

func (a Answer) carries(condition func(secret.Text) bool) bool {
	is := func(token secret.Text) bool { return !token.Empty() && condition(token) }
	for _, in := range a.Accounts {
		if is(in.AccessToken) || is(in.RefreshToken) {
			return true
		}
	}
	return is(a.AccessToken) || is(a.RefreshToken)
}

func (a Answer) hasAccessToken() bool {
	return !a.AccessToken.Empty() || slices.ContainsFunc(a.Accounts, func(in AnsweredAccount) bool { return !in.AccessToken.Empty() })
}

// NewRefreshToken returns the refresh token in an answer without echoes; empty: none.
func (a Answer) NewRefreshToken() secret.Text {
	for _, in := range a.Accounts {
		if !in.RefreshToken.Empty() {
			return in.RefreshToken
		}
	}
	return a.RefreshToken
}

// forget removes the echoes of the presented refresh token: they replace nothing.
func (a *Answer) forget(presented secret.Text) {
	drop := func(at *secret.Text) {
		if at.Equal(presented) {
			*at = secret.Text{}
		}
	}
	for i := range a.Accounts {
		drop(&a.Accounts[i].RefreshToken)
	}
	drop(&a.RefreshToken)
	a.Unplaced = slices.DeleteFunc(a.Unplaced, func(l UnplacedToken) bool { return l.Token.Equal(presented) })
}

// useUnplaced moves usable unplaced tokens to the deprecated fields, if no other of the kind is new.
func (a *Answer) useUnplaced(has func(secret.Text) bool) {
	refresh, access := a.NewRefreshToken(), false
	for _, in := range append([]AnsweredAccount{{AccessToken: a.AccessToken}}, a.Accounts...) {
		access = access || !in.AccessToken.Empty() && !has(in.AccessToken)
	}
	a.Unplaced = slices.DeleteFunc(a.Unplaced, func(l UnplacedToken) bool {
		switch {
		case !l.Usable || has(l.Token):
			return false
		case l.Refresh && refresh.Empty():
			a.RefreshToken, refresh = l.Token, l.Token
			return true
		case !l.Refresh && !access:
			a.AccessToken, access = l.Token, true
			return true
		}
		return false
	})
}

// onlyUnplaced returns the one refresh token beside the entries, where damage hides whose it
// is; empty: there is none, or more than one.
func (a Answer) onlyUnplaced(presented secret.Text) (only secret.Text) {
	for _, l := range a.Unplaced {
		switch {
		case !l.Refresh || !l.Usable || l.Token.Equal(presented) || l.Token.Equal(only):
		case !only.Empty():
			return secret.Text{}
		default:
			only = l.Token
		}
	}
	return only
}

// AnsweredAccount is one account of an Answer.
type AnsweredAccount struct {
	ID, Name     string
	AccessToken  secret.Text `json:"Access"`
	RefreshToken secret.Text `json:"Refresh"`
	TokenID      secret.Text `json:"Token"`
}

func (in AnsweredAccount) named() bool { return in.ID != "" || in.Name != "" }

func (in AnsweredAccount) blank() bool { return in == AnsweredAccount{} }

// Class sorts failures by what has to be done.
type Class string

const (
	// Transient: try again, with growing delays.
	Transient Class = "transient"
	// RateLimited: try later; it does not count as a try.
	RateLimited Class = "rate_limited"
	// MustAct: the user has to authenticate again.
	MustAct Class = "must_act"
	// Dead: the refresh token was refused.
	Dead Class = "dead"
	// BadRequest: refused as malformed. It means Dead, unless another request can be tried.
	BadRequest Class = "bad_request"
	// Unlawful: refused for legal reasons (HTTP 451, unavailableForLegalReasons), which
	// says nothing about the token.
	Unlawful Class = "unlawful"
	// Denied: Mesh refuses our own credentials. No grant is at fault.
	Denied Class = "denied"
)

// Failure is a refresh that brought no tokens. Its text consists of protocol constants,
// never of what Mesh wrote.
type Failure struct {
	Class Class
	// Ambiguous: the request went out, and the refresh token may have been replaced.
	Ambiguous bool
	// Reason is for the events of a grant that is Dead, MustAct, BadRequest or Unlawful.
	Reason events.Reason
	// RetryAfter is how long Mesh asks to wait; 0: it did not say.
	RetryAfter time.Duration
	// Interim, with MustAct, is the access token that completes the refresh together with
	// the user's code, and InterimLifetime how long it lives; 0: not stated.
	Interim         secret.Text
	InterimLifetime time.Duration
	// RefreshToken, with MustAct, is a new one that came beside, Brought all that came.
	RefreshToken secret.Text
	MFAAnswer    Answer
	// Answer is the rest of what came that may hold tokens.
	Answer Answer
	// The request may have been refused for lack of the access token, or because of it.
	AccessTokenMissing, AccessTokenUnwanted bool
	AskedForRefreshToken                    bool   // the refused request asked for a new refresh token, too
	Held                                    bool   // verdicts at the broker are held
	Detail                                  string // names the statuses
	// ErrorType and ErrorHash are words of the answer: letters, digits, "_" and "-".
	// Empty: there is none that may be kept.
	ErrorType, ErrorHash string
	Err                  error // the transport's error
}

func (f *Failure) Error() string {
	if f.Err != nil {
		return fmt.Sprintf("refresh: %s: %s: %v", f.Class, f.Detail, f.Err)
	}
	return fmt.Sprintf("refresh: %s: %s", f.Class, f.Detail)
}

func (f *Failure) Unwrap() error { return f.Err }

// Refusal reports whether Mesh refused the token or the request, which is no verdict yet.
func (f *Failure) Refusal() bool { return f.Class == Dead || f.Class == BadRequest }

// stripTokens drops the words of an answer that share a part with one of these tokens.
func (f *Failure) stripTokens(tokens []secret.Text) {
	for _, word := range []*string{&f.ErrorType, &f.ErrorHash} {
		if slices.ContainsFunc(tokens, func(t secret.Text) bool { return partOf(*word, t.Reveal()) }) {
			*word = ""
		}
	}
}

// sharedPart is how long a part of a token must be to be one.
const sharedPart = 8

// partOf reports whether a word and a token share a part, in any case, or one has the other.
func partOf(word, token string) bool {
	word, token = strings.ToLower(word), strings.ToLower(token)
	if word == "" || token == "" {
		return false
	}
	if strings.Contains(token, word) || strings.Contains(word, token) {
		return true
	}
	for at := 0; at+sharedPart <= len(word); at++ {
		if strings.Contains(token, word[at:at+sharedPart]) {
			return true
		}
	}
	return false
}
