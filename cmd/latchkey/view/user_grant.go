package view

import (
	"encoding/json"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// UserGrant is all that is kept of a grant, without its tokens and without hashes of them:
// for the user whom it is about.
type UserGrant struct {
	Grant
	BrokerName string `json:"brokerName,omitempty"`
	// AccountsConnectedAt says when the user gave single accounts, by their ids, if not with
	// the grant.
	AccountsConnectedAt map[string]time.Time `json:"accountsConnectedAt,omitempty"`
	// PublishedAt is when NATS stored the connect.
	PublishedAt *time.Time `json:"publishedAt,omitempty"`
	// OlderAccess are the lifetimes of access tokens of accounts that later answers did not cover.
	OlderAccess []Lifetime `json:"olderAccessTokens,omitempty"`
	// Waits counts postponed refreshes.
	Waits int `json:"waits"`
	// CodeUntil is until when a refresh waits for a code of the user, CodesRefused how many
	// were refused.
	CodeUntil    *time.Time `json:"codeUntil,omitempty"`
	CodesRefused int        `json:"codesRefused,omitempty"`
	// Refusals are those of the refresh token in a row, RefusedSince is since when.
	Refusals     int        `json:"refusals,omitempty"`
	RefusedSince *time.Time `json:"refusedSince,omitempty"`
	// Announced is the reason of the last token.expiring.
	Announced events.Reason `json:"announced,omitempty"`
	// RequestedVersion is the last version whose access tokens were requested.
	RequestedVersion int64 `json:"requestedVersion,omitempty"`
	// Unsent are events that are still to be published.
	Unsent []json.RawMessage `json:"unsentEvents,omitempty"`
	// DeletedAfter is when the record may be deleted.
	DeletedAfter *time.Time `json:"deletedAfter,omitempty"`
}

// OfUserGrant returns the view of a grant for its user.
func OfUserGrant(g *store.Grant) UserGrant {
	v := UserGrant{
		Grant: OfGrant(g), BrokerName: g.BrokerName, Waits: g.Deferrals, Announced: g.Warned, RequestedVersion: g.UsedIn, DeletedAfter: g.PurgeAt,
	}
	for _, account := range g.Accounts {
		if account.ConnectedAt != nil {
			if v.AccountsConnectedAt == nil {
				v.AccountsConnectedAt = map[string]time.Time{}
			}
			v.AccountsConnectedAt[account.ID] = *account.ConnectedAt
		}
	}
	if g.Published != 0 {
		at := time.Unix(0, g.Published).UTC()
		v.PublishedAt = &at
	}
	for i := range g.OlderAccess {
		v.OlderAccess = append(v.OlderAccess, *ofLife(&g.OlderAccess[i]))
	}
	if g.MFA != nil {
		v.CodeUntil, v.CodesRefused = &g.MFA.Until, g.MFA.Refused
	}
	if g.Refusals != nil {
		v.Refusals, v.RefusedSince = g.Refusals.Times, &g.Refusals.At
	}
	if g.Outbox != nil {
		for _, e := range g.Outbox.Events {
			v.Unsent = append(v.Unsent, e.Data)
		}
	}
	return v
}
