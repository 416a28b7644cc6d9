// Package view holds the JSON forms that the command line and the operator's page share:
// grants without their tokens, dead letters without their bodies, verdicts.
package view

import (
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// Grant is a grant without its tokens.
type Grant struct {
	ID       string        `json:"id"`
	User     string        `json:"user"`
	Broker   string        `json:"broker"`
	Accounts []Account     `json:"accounts"`
	State    store.State   `json:"state"`
	Reason   events.Reason `json:"reason,omitempty"`
	Version  int64         `json:"version"`

	// Labels are the publisher's.
	Labels map[string]string `json:"labels,omitempty"`

	ConnectedAt time.Time `json:"connectedAt"`
	Access      *Lifetime `json:"accessToken,omitempty"`
	Refresh     *Lifetime `json:"refreshToken,omitempty"`
	Due         *Due      `json:"due,omitempty"`
	// Tries counts failed refreshes since the last that succeeded.
	Tries int `json:"tries"`
	// Failing describes these failures, as answers to token requests do.
	Failing *events.RefreshFailing `json:"refreshFailing,omitempty"`
	// Refused is the last report of a refused access token that counted.
	Refused *Refused `json:"refused,omitempty"`
	// UnknownSince is since when the outcome of a refresh is unknown.
	UnknownSince *time.Time `json:"unknownSince,omitempty"`
	Lease        *Lease     `json:"lease,omitempty"`
	LastError    *LastError `json:"lastError,omitempty"`
	Removal      *Removal   `json:"removal,omitempty"`
}

// Removal is the pending removal of a revoked grant at Mesh.
type Removal struct {
	Since time.Time `json:"since"`
	Due   time.Time `json:"due"`
	Tries int       `json:"tries"`
}

// Account is one account of a grant.
type Account struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
}

// Lifetime says when a token was obtained, and when it ends.
type Lifetime struct {
	Since     time.Time  `json:"since"`
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
	// Assumed: the end is derived, not stated by Mesh.
	Assumed bool `json:"assumed,omitempty"`
}

// Due is a grant's next action.
type Due struct {
	At     time.Time    `json:"at"`
	Action store.Action `json:"action"`
}

// Refused is a caller's report that an institution refused the access tokens of a
// version.
type Refused struct {
	Version int64     `json:"version"`
	At      time.Time `json:"at"`
}

// Lease is the right of one worker to refresh a grant.
type Lease struct {
	Owner string    `json:"owner"`
	Until time.Time `json:"until"`
}

// LastError describes the last failed refresh.
type LastError struct {
	At     time.Time `json:"at"`
	Class  string    `json:"class"`
	Detail string    `json:"detail"`
	Type   string    `json:"errorType,omitempty"`
	Hash   string    `json:"errorHash,omitempty"`
}

// OfGrant returns the view of a grant.
func OfGrant(g *store.Grant) Grant {
	v := Grant{
		ID: g.ID, User: g.UserID, Broker: g.BrokerType, Accounts: make([]Account, len(g.Accounts)),
		State: g.State, Reason: g.Reason, Version: g.Version, Labels: g.Labels, ConnectedAt: g.ConnectedAt,
		Access: ofLife(g.Access), Refresh: ofLife(g.Refresh), Due: OfDue(g.Due), Tries: g.Attempts, UnknownSince: g.Unknown,
		Failing: refresher.RefreshFailing(g), Refused: (*Refused)(g.RefusedReport), Lease: (*Lease)(g.Lease),
	}
	for i, account := range g.Accounts {
		v.Accounts[i] = Account{ID: account.ID, Name: account.Name, ExpiresAt: account.ExpiresAt}
	}
	if r := g.Removal; r != nil {
		v.Removal = &Removal{Since: r.Since, Due: r.Due, Tries: r.Attempts}
	}
	if e := g.Failing; e != nil {
		v.LastError = &LastError{At: e.At, Class: e.Why, Detail: e.Detail, Type: e.Type, Hash: e.Hash}
	}
	return v
}

func ofLife(l *store.Lifetime) *Lifetime {
	if l == nil {
		return nil
	}
	return &Lifetime{Since: l.Since, ExpiresAt: l.ExpiresAt, Assumed: l.Assumed}
}

// OfDue returns the view of a grant's next action; nil if there is none.
func OfDue(d *store.Due) *Due {
	if d == nil {
		return nil
	}
	return &Due{At: d.At, Action: d.Action}
}
