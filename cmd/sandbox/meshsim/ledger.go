package meshsim

import (
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/events/secret"
)

// Ledger is what the simulator knew at one moment. It holds no tokens, only
// fingerprints, and can be marshalled to JSON and back.
type Ledger struct {
	At       time.Time `json:"at"`
	Chains   []Chain   `json:"chains"`   // in order of connection; Chains[i].ID is i+1
	Requests []Request `json:"requests"` // in order of arrival; Requests[i].ID is i+1
}

// Chain is the life of one grant: the refresh tokens that replaced each other and
// the access tokens that came with them.
type Chain struct {
	ID          int         `json:"id"`
	BrokerType  string      `json:"brokerType"`
	BrokerName  string      `json:"brokerName"`
	Accounts    []Account   `json:"accounts"`
	Institution Institution `json:"institution"`
	ConnectedAt time.Time   `json:"connectedAt"`
	DiedAt      time.Time   `json:"diedAt,omitzero"`
	DeadBecause string      `json:"deadBecause,omitzero"` // "" while alive
	DiedIn      int         `json:"diedIn,omitzero"`      // the request that killed it
	// SplitFrom is the chain that an account left when a refresh gave it a refresh
	// token of its own; 0: none.
	SplitFrom int `json:"splitFrom,omitzero"`
	// TokenIDs tells that the connect brought tokenIds.
	TokenIDs bool           `json:"tokenIds,omitzero"`
	UsedAt   time.Time      `json:"usedAt,omitzero"` // when the refresh token was last presented
	Refresh  []RefreshToken `json:"refresh"`         // the last one is current
	Access   []AccessToken  `json:"access"`
}

// Account is one account at an institution.
type Account struct {
	ID            string   `json:"id"`
	Name          string   `json:"name"`
	Fund          *float64 `json:"fund,omitzero"` // buying power
	Cash          *float64 `json:"cash,omitzero"` // US dollars
	IsReconnected *bool    `json:"isReconnected,omitzero"`
}

// Reasons why a chain is dead.
const (
	DeadByReuse   = "a replaced refresh token was presented"
	DeadByExpiry  = "the refresh token expired"
	DeadByDisuse  = "the refresh token was not used for too long"
	DeadByRemoval = "the connection was removed"
	DeadByFault   = "the institution ended it"
)

// RefreshToken is the life of one refresh token.
type RefreshToken struct {
	Fingerprint Fingerprint `json:"fingerprint"`
	IssuedAt    time.Time   `json:"issuedAt"`
	IssuedIn    int         `json:"issuedIn,omitzero"` // request; 0 is the connection
	ExpiresAt   time.Time   `json:"expiresAt,omitzero"`
	ReplacedAt  time.Time   `json:"replacedAt,omitzero"`
	ReplacedIn  int         `json:"replacedIn,omitzero"` // request
	// Presented are the requests that reached the institution with this token.
	Presented []int `json:"presented,omitzero"`
}

// AccessToken is the life of one access token.
type AccessToken struct {
	Fingerprint Fingerprint `json:"fingerprint"`
	AccountID   string      `json:"accountId"` // "": all accounts of the chain
	IssuedAt    time.Time   `json:"issuedAt"`
	IssuedIn    int         `json:"issuedIn,omitzero"` // request; 0 is the connection
	ExpiresAt   time.Time   `json:"expiresAt,omitzero"`
	KilledAt    time.Time   `json:"killedAt,omitzero"`
	KilledWhy   string      `json:"killedWhy,omitzero"`
	Interim     bool        `json:"interim,omitzero"` // only good for the second request of the MFA flow
}

// Operation is what a request asks for.
type Operation string

// The operations.
const (
	OpRefresh Operation = "refresh"
	OpRemove  Operation = "remove"
)

// Request is one request to the API.
type Request struct {
	ID         int         `json:"id"`
	Operation  Operation   `json:"operation"`
	At         time.Time   `json:"at"`
	Remote     string      `json:"remote,omitzero"` // address of the client
	Local      string      `json:"local,omitzero"`  // address at which the client reached the simulator
	BrokerType string      `json:"brokerType,omitzero"`
	Token      Fingerprint `json:"token,omitzero"` // the refresh token, or the access token of a removal
	Chain      int         `json:"chain,omitzero"` // 0: the token is unknown

	// Reached tells that the institution was asked; a fault can come before that.
	Reached bool `json:"reached,omitzero"`
	// Replaced tells that the presented token had been replaced before.
	Replaced bool `json:"replaced,omitzero"`
	// WithinGrace tells that a replaced token was still accepted.
	WithinGrace bool `json:"withinGrace,omitzero"`
	// Issued tells that the answer holds access tokens, Rotated that this request
	// replaced the refresh token.
	Issued  bool `json:"issued,omitzero"`
	Rotated bool `json:"rotated,omitzero"`
	// Resent tells that the answer holds once more what the one before it held.
	Resent bool `json:"resent,omitzero"`

	presented secret.Text // the refresh token, for a dialect that repeats it

	Outcome     string    `json:"outcome,omitzero"`    // what the client was told
	HTTPStatus  int       `json:"httpStatus,omitzero"` // 0: nothing was sent
	AnsweredAt  time.Time `json:"answeredAt,omitzero"` // zero: not yet
	Delivered   bool      `json:"delivered,omitzero"`  // the whole true answer was written to a client that was there
	Undelivered string    `json:"undelivered,omitzero"`
}

// Reuse is a refresh token that reached the institution after it had been
// replaced.
//
// The ledger takes a client for informed once the last byte of an answer was
// written. A test that kills its client compares ReplacedIn.AnsweredAt with the
// moment of the kill before it blames anyone.
type Reuse struct {
	Token       Fingerprint `json:"token"`
	Chain       int         `json:"chain"`
	Request     Request     `json:"request"`
	ReplacedIn  Request     `json:"replacedIn"`
	WithinGrace bool        `json:"withinGrace"`
	// Ambiguous tells that the answer which replaced the token never reached the
	// client, nor did a later one to the same token, so that the client could not
	// know.
	Ambiguous bool `json:"ambiguous"`
	// Overlapped tells that both requests were under way at the same time.
	Overlapped bool `json:"overlapped"`
}

// Violation tells whether nothing excuses the client: neither grace nor a lost
// answer.
func (r Reuse) Violation() bool { return !r.WithinGrace && !r.Ambiguous }

// ReplacedPresented returns every reuse, in order of arrival.
func (l Ledger) ReplacedPresented() []Reuse {
	var out []Reuse
	for _, q := range l.Requests {
		if !q.Reached || !q.Replaced || q.Chain == 0 {
			continue
		}
		t, ok := l.Chains[q.Chain-1].refreshToken(q.Token)
		if !ok || t.ReplacedIn == 0 {
			continue
		}
		by := l.Requests[t.ReplacedIn-1]
		out = append(out, Reuse{
			Token: q.Token, Chain: q.Chain, Request: q, ReplacedIn: by,
			WithinGrace: q.WithinGrace,
			Ambiguous:   by.Undelivered != "" && !l.deliveredBefore(q),
			Overlapped:  by.AnsweredAt.IsZero() || by.AnsweredAt.After(q.At),
		})
	}
	return out
}

// deliveredBefore tells whether an earlier request with the same token brought the
// client its successor.
func (l Ledger) deliveredBefore(q Request) bool {
	return slices.ContainsFunc(l.Requests[:q.ID-1], func(p Request) bool {
		return p.Token == q.Token && (p.Rotated || p.Resent || p.Replaced && p.Issued) && p.Delivered
	})
}

// Violations returns the reuses that nothing excuses.
func (l Ledger) Violations() []Reuse {
	return slices.DeleteFunc(l.ReplacedPresented(), func(r Reuse) bool { return !r.Violation() })
}

// DoubleSpends returns the reuses of tokens whose replacement the client did
// receive, whether or not a grace window forgave them: stricter than
// [Ledger.Violations].
func (l Ledger) DoubleSpends() []Reuse {
	return slices.DeleteFunc(l.ReplacedPresented(), func(r Reuse) bool { return r.Ambiguous })
}

// UndeliveredAnswers returns the requests in which the institution issued tokens
// that did not reach the client.
func (l Ledger) UndeliveredAnswers() []Request {
	var out []Request
	for _, q := range l.Requests {
		if (q.Issued || q.Rotated) && q.Undelivered != "" {
			out = append(out, q)
		}
	}
	return out
}

// Spoke tells whether an answer was told in a dialect. Those of behaviour and of
// connects are no part of an answer.
func (q Request) Spoke(dialect string) bool {
	names := q.Outcome
	if at := strings.LastIndex(names, spokenIn); at >= 0 {
		names = names[at+len(spokenIn):]
	}
	return slices.Contains(strings.Split(names, ", "), dialect)
}

// spokenIn stands in an outcome before the names of dialects.
const spokenIn = ", in "

// Chain returns the newest chain of an account.
func (l Ledger) Chain(accountID string) (Chain, bool) {
	for _, c := range slices.Backward(l.Chains) {
		if c.HasAccount(accountID) {
			return c, true
		}
	}
	return Chain{}, false
}

// ChainOf returns the chain of a refresh or access token.
func (l Ledger) ChainOf(token secret.Text) (Chain, bool) {
	fp := FingerprintOf(token)
	for _, c := range l.Chains {
		if _, ok := c.refreshToken(fp); ok {
			return c, true
		}
		if _, ok := c.accessToken(fp); ok {
			return c, true
		}
	}
	return Chain{}, false
}

// AccessTokenState tells whether an access token opens the account at the moment
// of the snapshot, and if not, why.
func (l Ledger) AccessTokenState(token secret.Text) (valid bool, why string) {
	fp := FingerprintOf(token)
	for _, c := range l.Chains {
		if a, ok := c.accessToken(fp); ok {
			return a.state(l.At)
		}
	}
	return false, "unknown"
}

// RefreshTokenState tells whether a refresh token is its chain's current one and
// usable at the moment of the snapshot, and if not, why.
func (l Ledger) RefreshTokenState(token secret.Text) (valid bool, why string) {
	fp := FingerprintOf(token)
	for _, c := range l.Chains {
		t, ok := c.refreshToken(fp)
		switch {
		case !ok:
			continue
		case c.DeadBecause != "":
			return false, c.DeadBecause
		case !t.ReplacedAt.IsZero():
			return false, "replaced"
		case expired(t.ExpiresAt, l.At):
			return false, DeadByExpiry
		}
		return true, ""
	}
	return false, "unknown"
}

// Alive tells whether the chain can still be refreshed.
func (c Chain) Alive() bool { return c.DeadBecause == "" }

// HasAccount tells whether the chain holds an account.
func (c Chain) HasAccount(accountID string) bool {
	return slices.ContainsFunc(c.Accounts, func(a Account) bool { return a.ID == accountID })
}

// Current returns the refresh token that the institution expects next.
func (c Chain) Current() RefreshToken { return c.Refresh[len(c.Refresh)-1] }

func (c Chain) refreshToken(fp Fingerprint) (RefreshToken, bool) {
	i := slices.IndexFunc(c.Refresh, func(t RefreshToken) bool { return t.Fingerprint == fp })
	if i < 0 {
		return RefreshToken{}, false
	}
	return c.Refresh[i], true
}

func (c Chain) accessToken(fp Fingerprint) (AccessToken, bool) {
	i := slices.IndexFunc(c.Access, func(t AccessToken) bool { return t.Fingerprint == fp })
	if i < 0 {
		return AccessToken{}, false
	}
	return c.Access[i], true
}

func (a AccessToken) state(now time.Time) (valid bool, why string) {
	switch {
	case !a.KilledAt.IsZero():
		return false, a.KilledWhy
	case a.Interim:
		return false, "interim"
	case expired(a.ExpiresAt, now):
		return false, "expired"
	}
	return true, ""
}

func expired(end, now time.Time) bool { return !end.IsZero() && !now.Before(end) }

// idleEnd is when the refresh token dies from disuse; zero: never.
func (c Chain) idleEnd(i Institution) time.Time {
	used := c.Current().IssuedAt
	if c.UsedAt.After(used) {
		used = c.UsedAt
	}
	return end(used, i.RefreshIdle)
}

// refreshEnd is when the refresh token ends; zero: never.
func (c Chain) refreshEnd(i Institution) time.Time {
	at, idle := c.Current().ExpiresAt, c.idleEnd(i)
	if at.IsZero() || !idle.IsZero() && idle.Before(at) {
		return idle
	}
	return at
}

// over tells why the refresh token has ended by itself, "" if it has not.
func (c Chain) over(i Institution, now time.Time) string {
	switch {
	case expired(c.Current().ExpiresAt, now):
		return DeadByExpiry
	case expired(c.idleEnd(i), now):
		return DeadByDisuse
	}
	return ""
}
