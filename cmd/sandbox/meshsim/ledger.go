package meshsim

import (
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/events/secret"
)

// Ledger is what the simulator knew at one moment, with fingerprints in place of tokens.
// It can be marshalled to JSON and back.
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
	// SplitFrom is the chain that an account left when a refresh gave it a refresh token
	// of its own; 0: none.
	SplitFrom int            `json:"splitFrom,omitzero"`
	TokenIDs  bool           `json:"tokenIds,omitzero"` // the connect brought tokenIds
	UsedAt    time.Time      `json:"usedAt,omitzero"`   // when the refresh token was last presented
	Refresh   []RefreshToken `json:"refresh"`           // the last one is current
	Access    []AccessToken  `json:"access"`
}

type Account struct {
	ID            string   `json:"id"`
	Name          string   `json:"name"`
	Fund          *float64 `json:"fund,omitzero"` // buying power
	Cash          *float64 `json:"cash,omitzero"` // US dollars
	IsReconnected *bool    `json:"isReconnected,omitzero"`
}

const (
	DeadByReuse   = "a replaced refresh token was presented"
	DeadByExpiry  = "the refresh token expired"
	DeadByDisuse  = "the refresh token was not used for too long"
	DeadByRemoval = "the connection was removed"
	DeadByFault   = "the institution ended it"
)

type RefreshToken struct {
	Fingerprint Fingerprint `json:"fingerprint"`
	IssuedAt    time.Time   `json:"issuedAt"`
	IssuedIn    int         `json:"issuedIn,omitzero"` // request; 0 is the connection
	ExpiresAt   time.Time   `json:"expiresAt,omitzero"`
	ReplacedAt  time.Time   `json:"replacedAt,omitzero"`
	ReplacedIn  int         `json:"replacedIn,omitzero"` // request
	Presented   []int       `json:"presented,omitzero"`  // requests that reached the institution with this token
}

type AccessToken struct {
	Fingerprint Fingerprint `json:"fingerprint"`
	AccountID   string      `json:"accountId"` // "": all accounts of the chain
	IssuedAt    time.Time   `json:"issuedAt"`
	IssuedIn    int         `json:"issuedIn,omitzero"` // request; 0 is the connection
	ExpiresAt   time.Time   `json:"expiresAt,omitzero"`
	KilledAt    time.Time   `json:"killedAt,omitzero"`
	KilledWhy   string      `json:"killedWhy,omitzero"`
	Interim     bool        `json:"interim,omitzero"` // only for the second request of the MFA flow
}

type Operation string

const (
	OpRefresh Operation = "refresh"
	OpRemove  Operation = "remove"
)

type Request struct {
	ID         int         `json:"id"`
	Operation  Operation   `json:"operation"`
	At         time.Time   `json:"at"`
	Remote     string      `json:"remote,omitzero"` // address of the client
	Local      string      `json:"local,omitzero"`  // address at which the client reached the simulator
	BrokerType string      `json:"brokerType,omitzero"`
	Token      Fingerprint `json:"token,omitzero"` // the refresh token, or the access token of a removal
	Chain      int         `json:"chain,omitzero"` // 0: the token is unknown

	Reached     bool `json:"reached,omitzero"`     // the institution was asked; a fault can come before that
	Replaced    bool `json:"replaced,omitzero"`    // the token had been replaced before
	WithinGrace bool `json:"withinGrace,omitzero"` // a replaced token was still accepted
	Issued      bool `json:"issued,omitzero"`      // the answer holds access tokens
	Rotated     bool `json:"rotated,omitzero"`     // this request replaced the refresh token
	Resent      bool `json:"resent,omitzero"`      // the answer holds the same tokens as the one before it

	presented secret.Text // the refresh token, for a dialect that repeats it

	Outcome     string    `json:"outcome,omitzero"`    // of the answer
	HTTPStatus  int       `json:"httpStatus,omitzero"` // 0: nothing was sent
	AnsweredAt  time.Time `json:"answeredAt,omitzero"` // zero: not yet
	Delivered   bool      `json:"delivered,omitzero"`  // the whole true answer was written to a client that was there
	Undelivered string    `json:"undelivered,omitzero"`
}

// Reuse is a refresh token that reached the institution after it had been replaced.
//
// For the ledger a client has an answer once its last byte was written. A test that
// kills its client must compare ReplacedIn.AnsweredAt with the moment of the kill.
type Reuse struct {
	Token       Fingerprint `json:"token"`
	Chain       int         `json:"chain"`
	Request     Request     `json:"request"`
	ReplacedIn  Request     `json:"replacedIn"`
	WithinGrace bool        `json:"withinGrace"`
	// Ambiguous: neither the answer that replaced the token nor a later one to the same
	// token reached the client, which could not know.
	Ambiguous  bool `json:"ambiguous"`
	Overlapped bool `json:"overlapped"` // both requests were under way at the same time
}

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

// deliveredBefore reports whether an earlier request with the same token brought the
// client its successor.
func (l Ledger) deliveredBefore(q Request) bool {
	return slices.ContainsFunc(l.Requests[:q.ID-1], func(p Request) bool {
		return p.Token == q.Token && (p.Rotated || p.Resent || p.Replaced && p.Issued) && p.Delivered
	})
}

// DoubleSpends returns the reuses of tokens whose replacement the client did receive,
// also those within a grace window.
func (l Ledger) DoubleSpends() []Reuse {
	return slices.DeleteFunc(l.ReplacedPresented(), func(r Reuse) bool { return r.Ambiguous })
}

// Spoke reports whether the answer was in a dialect. Those of behaviour and of connects
// are no part of an answer.
func (q Request) Spoke(dialect string) bool {
	names := q.Outcome[max(0, strings.LastIndex(q.Outcome, spokenIn)):]
	return slices.Contains(strings.Split(strings.TrimPrefix(names, spokenIn), ", "), dialect)
}

// spokenIn stands in an outcome before the names of dialects.
const spokenIn = ", in "

func (l Ledger) Chain(accountID string) (Chain, bool) {
	for _, c := range slices.Backward(l.Chains) {
		if c.HasAccount(accountID) {
			return c, true
		}
	}
	return Chain{}, false
}

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

// AccessTokenState reports whether an access token opened the account at the moment of
// the snapshot, and if not, why.
func (l Ledger) AccessTokenState(token secret.Text) (valid bool, why string) {
	c, _ := l.ChainOf(token)
	if a, ok := c.accessToken(FingerprintOf(token)); ok {
		return a.state(l.At)
	}
	return false, "unknown"
}

// RefreshTokenState reports whether a refresh token was its chain's current one and
// usable at the moment of the snapshot, and if not, why.
func (l Ledger) RefreshTokenState(token secret.Text) (valid bool, why string) {
	c, _ := l.ChainOf(token)
	t, ok := c.refreshToken(FingerprintOf(token))
	switch {
	case !ok:
		return false, "unknown"
	case c.DeadBecause != "":
		return false, c.DeadBecause
	case !t.ReplacedAt.IsZero():
		return false, "replaced"
	case expired(t.ExpiresAt, l.At):
		return false, DeadByExpiry
	}
	return true, ""
}

// Alive reports whether the chain can still be refreshed.
func (c Chain) Alive() bool { return c.DeadBecause == "" }

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
	return end(slices.MaxFunc([]time.Time{c.Current().IssuedAt, c.UsedAt}, time.Time.Compare), i.RefreshIdle)
}

// refreshEnd is when the refresh token ends; zero: never.
func (c Chain) refreshEnd(i Institution) time.Time {
	at, idle := c.Current().ExpiresAt, c.idleEnd(i)
	if at.IsZero() || !idle.IsZero() && idle.Before(at) {
		return idle
	}
	return at
}

// over returns why the refresh token has ended by itself, "" if it has not.
func (c Chain) over(i Institution, now time.Time) string {
	switch {
	case expired(c.Current().ExpiresAt, now):
		return DeadByExpiry
	case expired(c.idleEnd(i), now):
		return DeadByDisuse
	}
	return ""
}
