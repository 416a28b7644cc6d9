package store

import (
	"cmp"
	"slices"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/audit"
)

// InNewer reports whether an account is in a newer grant of the user at the same broker.
// all may include g and the user's other grants.
func (g *Grant) InNewer(accountID string, all []*Grant) bool {
	return accountID != "" && slices.ContainsFunc(all, func(other *Grant) bool {
		return other.ID != g.ID && other.State != Revoked && events.SameBroker(other.BrokerType, g.BrokerType) &&
			other.Account(accountID) != nil && other.newerFor(accountID, g)
	})
}

// newerFor orders the grants that have an account by the time when the user gave it.
func (g *Grant) newerFor(accountID string, other *Grant) bool {
	return cmp.Or(g.ConnectedSince(accountID).Compare(other.ConnectedSince(accountID)), cmp.Compare(g.Split, other.Split),
		cmp.Compare(g.Published, other.Published), cmp.Compare(g.ID, other.ID)) > 0
}

// Unchanged reports whether the grant is as it was when listed. Sending an outbox leaves
// the revision as it is, but not the outbox and the stream of the schedule.
func (g *Grant) Unchanged(listed *Grant) bool {
	sent := (g.Outbox == nil) != (listed.Outbox == nil) || g.Due != nil && listed.Due != nil && g.Due.Stream != listed.Due.Stream
	return g.Rev == listed.Rev && !sent
}

// AuditView is what the audit log says of the grant and some of its accounts.
func (g *Grant) AuditView(accounts []string) audit.Grant {
	return audit.Grant{ID: g.ID, Broker: g.BrokerType, Version: g.Version, Accounts: accounts}
}

// AuditRecord records what was done with the tokens of some accounts of the grant.
func (g *Grant) AuditRecord(action audit.Action, outcome string, accounts []string) audit.Record {
	return audit.Record{Action: action, Outcome: outcome, User: g.UserID, Grants: []audit.Grant{g.AuditView(accounts)}}
}
