package store

import (
	"slices"
	"time"
)

// One access token life is not always that of all accounts: an answer may cover
// some of them only. The others keep their tokens, and these their own ends.

// AccessOf returns the life of an account's access token: that of the grant, or an
// earlier one of an account that later answers did not cover.
func (g *Grant) AccessOf(a Account) *Life {
	if g.Newest(a) {
		return g.Access
	}
	if i := g.earlier(a.ExpiresAt); i >= 0 {
		return &g.Earlier[i]
	}
	// An earlier release did not write more than the end, and nothing for an account
	// that was connected without an access token.
	life := &Life{Since: g.ConnectedAt, ExpiresAt: a.ExpiresAt}
	if a.ExpiresAt != nil && life.Since.After(*a.ExpiresAt) {
		life.Since = *a.ExpiresAt
	}
	return life
}

// LastAccess returns the life of that access token of the accounts which ends last:
// for so long the grant has one to give. Nil: it has none.
func (g *Grant) LastAccess() *Life {
	last := g.Access
	if last == nil {
		return nil
	}
	for _, a := range g.Accounts {
		kept := !g.Newest(a) && (a.ExpiresAt == nil && g.endless(a) || a.ExpiresAt != nil && g.earlier(a.ExpiresAt) >= 0)
		if kept && (a.ExpiresAt == nil || last.ExpiresAt != nil && a.ExpiresAt.After(*last.ExpiresAt)) {
			last = g.AccessOf(a)
		}
	}
	return last
}

// endless reports whether an account without an end that has none of the newest access
// tokens has one without a known end. An account that was connected without a token
// has no end either, until the first answer that passes it over gives it one.
func (g *Grant) endless(a Account) bool {
	return g.Applied > 0 && g.Access.Since.After(g.Given(a.ID))
}

// Newest reports whether an account has an access token of the grant's newest.
func (g *Grant) Newest(a Account) bool {
	if g.Access == nil {
		return a.ExpiresAt == nil
	}
	return sameTime(a.ExpiresAt, g.Access.ExpiresAt)
}

// Current reports whether the newest access tokens of a version are the newest still.
func (g *Grant) Current(version int64) bool {
	if g.Access != nil && g.Access.Version != 0 {
		return version >= g.Access.Version
	}
	return version >= g.Version
}

func sameTime(a, b *time.Time) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Equal(*b)
}

func (g *Grant) earlier(end *time.Time) int {
	return slices.IndexFunc(g.Earlier, func(l Life) bool { return sameTime(l.ExpiresAt, end) })
}

// KeepEarlier has Earlier hold the lives, by their ends, of the accounts that have
// none of the newest access tokens, each as life returns it, and no others. Accounts
// without an end need none.
func (g *Grant) KeepEarlier(life func(Account) *Life) {
	var kept []Life
	for _, a := range g.Accounts {
		if a.ExpiresAt == nil || g.Newest(a) || slices.ContainsFunc(kept, func(l Life) bool { return sameTime(l.ExpiresAt, a.ExpiresAt) }) {
			continue
		}
		kept = append(kept, *life(a))
	}
	g.Earlier = kept
}

// EndingAt returns the accounts whose access token has this end.
func (g *Grant) EndingAt(end *time.Time) (accounts []Account) {
	for _, a := range g.Accounts {
		if sameTime(a.ExpiresAt, end) {
			accounts = append(accounts, a)
		}
	}
	return accounts
}

// Heal takes out an account with an empty id, which earlier releases made of an
// access token that an answer gave to no account: it is that of all accounts, as
// long as these have none that ends later.
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
			token = tokens.Account("") // the list may lie elsewhere now
		}
	}
	g.Accounts = slices.DeleteFunc(g.Accounts, func(a Account) bool { return a.ID == "" })
	if len(g.Accounts) > 0 {
		tokens.Accounts = slices.DeleteFunc(tokens.Accounts, func(t AccountToken) bool { return t.AccountID == "" })
	}
}
