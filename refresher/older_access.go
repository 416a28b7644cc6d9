package refresher

import (
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// An answer may cover only some accounts of a grant. The others keep their access
// tokens, each with its own end: before that they are requested once more, then the
// coming end is announced, and then the end.

// uncovered are the accounts that an answer left behind.
type uncovered struct {
	accounts int
	// warn are ends of access tokens to be announced: requesting them again has not helped.
	warn []time.Time
}

// keepUncovered keeps the lifetimes of the access tokens of accounts that an answer did not
// cover. before is the grant before the answer.
func (s Settler) keepUncovered(g, before *store.Grant, tokens store.TokenSet, covered map[string]bool, sent time.Time) (b uncovered) {
	if len(covered) == 0 {
		return b // nobody's token is newer
	}
	had := make(map[string]bool, len(tokens.Accounts))
	for _, t := range tokens.Accounts {
		had[t.AccountID] = !t.AccessToken.Empty()
	}
	for i := range g.Accounts {
		a := &g.Accounts[i]
		if covered[a.ID] {
			continue
		}
		b.accounts++
		if !had[a.ID] && (a.ExpiresAt == nil || a.ExpiresAt.After(sent)) {
			a.ExpiresAt = &sent // it has none to keep
		}
	}
	g.KeepOlderAccess(func(a store.Account) *store.Lifetime {
		if a.ExpiresAt.Equal(sent) {
			return &store.Lifetime{Since: sent, ExpiresAt: &sent, RequestedAt: &sent}
		}
		life := *before.AccessOf(a)
		if !life.Warned && s.Policy.lastAttempt(before, &life, sent) {
			life.Warned = true
			b.warn = append(b.warn, *life.ExpiresAt)
		}
		life.RequestedAt = &sent
		return &life
	})
	g.AccountsDue = s.Policy.AccountsDue(g)
	return b
}

// requestAgainAt is when an access token that the last answers did not cover is requested once
// more: within its margin, and half way from the last answer to the last moment for a
// try. Nil: that would be too late, or has not helped.
func (p Policy) requestAgainAt(g *store.Grant, life *store.Lifetime) *time.Time {
	last := p.latestAttempt(life)
	if last == nil || life.Warned || life.RequestedAt == nil || !life.RequestedAt.Before(*last) {
		return nil
	}
	at := p.before(g, life, p.margins(g).AccessToken, p.reserve(life))
	if half := life.RequestedAt.Add(last.Sub(*life.RequestedAt) / 2); half.After(*at) {
		return &half
	}
	return at
}

// lastAttempt reports whether no later refresh is to bring a token that this one did not.
func (p Policy) lastAttempt(g *store.Grant, life *store.Lifetime, sent time.Time) bool {
	last := p.latestAttempt(life)
	if last == nil {
		return false
	}
	margin := p.before(g, life, p.margins(g).AccessToken, p.reserve(life))
	return !sent.Before(*last) || life.RequestedAt != nil && !sent.Before(*margin)
}

// AccountsDue is when single accounts of a grant are next to be announced; nil: never.
func (p Policy) AccountsDue(g *store.Grant) (due *time.Time) {
	for i := range g.OlderAccess {
		life := &g.OlderAccess[i]
		at := life.ExpiresAt
		if !life.Warned {
			at = p.latestAttempt(life)
		}
		if !life.EndAnnounced && (due == nil || at.Before(*due)) {
			due = at
		}
	}
	if due == nil {
		return nil
	}
	return new(store.Milli(*due))
}

// AnnounceAccounts announces which single accounts' access tokens are about to end or have.
func (s Settler) AnnounceAccounts(g *store.Grant, now time.Time) error {
	for i := range g.OlderAccess {
		life := &g.OlderAccess[i]
		kind := ""
		switch {
		case life.ExpiresAt == nil || life.EndAnnounced:
		case life.Expired(now):
			kind, life.Warned, life.EndAnnounced = events.TokenExpired, true, true
		case !life.Warned && !now.Before(*s.Policy.latestAttempt(life)):
			kind, life.Warned = events.TokenExpiring, true
		}
		if kind == "" {
			continue
		}
		if err := s.announceOlderAccess(g, kind, *life.ExpiresAt); err != nil {
			return err
		}
	}
	g.AccountsDue = s.Policy.AccountsDue(g)
	return nil
}

// announceOlderAccess adds an event about the accounts whose access token has this end.
func (a announcer) announceOlderAccess(g *store.Grant, kind string, end time.Time) error {
	accounts := g.EndingAt(&end)
	if len(accounts) == 0 {
		return nil // they have left the grant
	}
	about := g.LifecycleOf(accounts, events.ReasonNotCovered)
	about.ExpiresAt = &end
	return a.announce(g, kind, about)
}
