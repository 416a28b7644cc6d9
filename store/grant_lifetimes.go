package store

import (
	"slices"
	"time"
)

// An answer may cover only some accounts of a grant. The others keep their access tokens
// with their own ends.

// AccessOf returns the lifetime of an account's access token: Access, or one of OlderAccess if
// later answers did not cover the account.
func (g *Grant) AccessOf(a Account) *Lifetime {
	if g.Newest(a) {
		return g.Access
	}
	if i := g.olderAccess(a.ExpiresAt); i >= 0 {
		return &g.OlderAccess[i]
	}
	// Earlier releases wrote the end only, and nothing for an account that was connected
	// without an access token.
	life := &Lifetime{Since: g.ConnectedAt, ExpiresAt: a.ExpiresAt}
	if a.ExpiresAt != nil && life.Since.After(*a.ExpiresAt) {
		life.Since = *a.ExpiresAt
	}
	return life
}

// LastAccess returns the lifetime of the access token that ends last of all accounts'. Nil:
// the grant has no access token.
func (g *Grant) LastAccess() *Lifetime {
	last := g.Access
	if last == nil {
		return nil
	}
	for _, a := range g.Accounts {
		kept := !g.Newest(a) && (a.ExpiresAt == nil && g.endless(a) || a.ExpiresAt != nil && g.olderAccess(a.ExpiresAt) >= 0)
		if kept && (a.ExpiresAt == nil || last.ExpiresAt != nil && a.ExpiresAt.After(*last.ExpiresAt)) {
			last = g.AccessOf(a)
		}
	}
	return last
}

// endless reports whether an account without an end has an access token that may never
// end, though none of the newest. Else it was connected without a token, and has no end
// until the first answer that does not cover it.
func (g *Grant) endless(a Account) bool {
	return g.Applied > 0 && g.Access.Since.After(g.ConnectedSince(a.ID))
}

// Newest reports whether an account has one of the newest access tokens.
func (g *Grant) Newest(a Account) bool {
	if g.Access == nil {
		return a.ExpiresAt == nil
	}
	return sameTime(a.ExpiresAt, g.Access.ExpiresAt)
}

// Current reports whether no later version than this one brought access tokens.
func (g *Grant) Current(version int64) bool {
	if g.Access != nil && g.Access.Version != 0 {
		return version >= g.Access.Version
	}
	return version >= g.Version
}

func sameTime(a, b *time.Time) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Equal(*b)
}

func (g *Grant) olderAccess(end *time.Time) int {
	return slices.IndexFunc(g.OlderAccess, func(l Lifetime) bool { return sameTime(l.ExpiresAt, end) })
}

// KeepOlderAccess sets OlderAccess to the lifetimes of the accounts that have none of the
// newest access tokens, as lifetimeOf returns them, one for each end. Accounts without an end need
// none.
func (g *Grant) KeepOlderAccess(lifetimeOf func(Account) *Lifetime) {
	var kept []Lifetime
	for _, a := range g.Accounts {
		if a.ExpiresAt == nil || g.Newest(a) || slices.ContainsFunc(kept, func(l Lifetime) bool { return sameTime(l.ExpiresAt, a.ExpiresAt) }) {
			continue
		}
		kept = append(kept, *lifetimeOf(a))
	}
	g.OlderAccess = kept
}

// EndingAt returns the accounts whose access token ends at end.
func (g *Grant) EndingAt(end *time.Time) (accounts []Account) {
	for _, a := range g.Accounts {
		if sameTime(a.ExpiresAt, end) {
			accounts = append(accounts, a)
		}
	}
	return accounts
}

// Heal removes the account with an empty id, which earlier releases made for an access
// token that an answer gave to no account. The token becomes that of all accounts,
// except for those with a token that ends later.
func (g *Grant) Heal(tokens *TokenSet) {
	phantom, token := g.Account(""), tokens.Account("")
	if phantom == nil {
		return
	}
	for i := range g.Accounts {
		a := &g.Accounts[i]
		if a.ID == "" || token == nil || a.ExpiresAt == nil || phantom.ExpiresAt != nil && !phantom.ExpiresAt.After(*a.ExpiresAt) {
			continue
		}
		a.ExpiresAt = phantom.ExpiresAt
		if own := tokens.Account(a.ID); own != nil {
			own.AccessToken = token.AccessToken
		} else {
			tokens.Accounts = append(tokens.Accounts, AccountToken{AccountID: a.ID, AccessToken: token.AccessToken})
			token = tokens.Account("") // append may have moved the list
		}
	}
	g.Accounts = slices.DeleteFunc(g.Accounts, func(a Account) bool { return a.ID == "" })
	if len(g.Accounts) > 0 {
		tokens.Accounts = slices.DeleteFunc(tokens.Accounts, func(t AccountToken) bool { return t.AccountID == "" })
	}
}
