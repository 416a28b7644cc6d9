package refresher

import (
	"slices"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

// Bounds of what one grant holds, in bytes. MongoDB takes documents of 16 MiB; only the
// sealed token set, the accounts and the outbox can be large.
const (
	maxTokens   = 9 << 20
	maxAccounts = 3 << 20
	maxOutbox   = 2 << 20
	// maxEvent bounds one event, while the outbox has room: as much as the accounts of a
	// connect may take, with everything else.
	maxEvent        = 576 << 10
	accountOverhead = 64      // what MongoDB and JSON add to the texts of an account
	headerRoom      = 4 << 10 // for the headers of an event in a NATS message
)

// eventRoom is how large the next event may be. An outbox that NATS has not taken
// for long still gets events, without accounts.
func eventRoom(out *store.Outbox) int {
	left := maxOutbox
	for _, e := range out.Events {
		left -= len(e.Data)
	}
	return min(left, maxEvent)
}

// textSize is what a text takes in JSON at most.
func textSize(s string) int {
	size := len(s)
	for i := range len(s) {
		if s[i] < ' ' || s[i] == '"' || s[i] == '\\' {
			size += 5 // \u00XX
		}
	}
	return size
}

func (m *merger) tokenSize(t store.AccountToken) int {
	// Thousands of accounts may share a large token.
	if t.AccessToken != m.access {
		m.access, m.accessSize = t.AccessToken, textSize(t.AccessToken.Reveal())
	}
	return textSize(t.AccountID) + m.accessSize + textSize(t.RefreshToken.Reveal()) + textSize(t.TokenID.Reveal()) + accountOverhead
}

func accountSize(id, name string) int { return textSize(id) + textSize(name) + accountOverhead }

// merger puts the accounts of an answer into a grant and its token set, if there is room.
type merger struct {
	g      *store.Grant
	tokens *store.TokenSet
	// Places in g.Accounts and tokens.Accounts, by id.
	accounts, kept map[string]int
	// What these take.
	accountsSize, tokensSize int
	access                   secret.Text // the access token that was measured last
	accessSize               int
	reserved                 int // for the accounts still to come, without their names
}

// newMerger measures what is there. The refresh token, without which the rest is soon
// worthless, has its room first.
func newMerger(g *store.Grant, tokens *store.TokenSet) *merger {
	m := &merger{g: g, tokens: tokens, accounts: map[string]int{}, kept: map[string]int{}}
	for i, a := range g.Accounts {
		m.accounts[a.ID] = i
		m.accountsSize += accountSize(a.ID, a.Name)
	}
	m.tokensSize = textSize(tokens.RefreshToken.Reveal()) + textSize(tokens.TradeToken.Reveal()) + accountOverhead
	for i, t := range tokens.Accounts {
		m.kept[t.AccountID] = i
		m.tokensSize += m.tokenSize(t)
	}
	return m
}

// makeRoom drops access tokens of accounts that an answer does not cover if its own need the
// room: those end soon, and come again. Accounts come before the names of others.
func (m *merger) makeRoom(brought []AnsweredAccount) {
	size, fresh := m.tokensSize, make(map[string]bool, len(brought))
	for _, in := range brought {
		fresh[in.ID] = true
		size += m.tokenSize(store.AccountToken{AccountID: in.ID, AccessToken: in.AccessToken, TokenID: in.TokenID})
	}
	if size > maxTokens {
		left := slices.DeleteFunc(slices.Clone(m.tokens.Accounts), func(t store.AccountToken) bool { return !fresh[t.AccountID] })
		m.tokens.Accounts = left
		*m = *newMerger(m.g, m.tokens)
		// A larger refresh token may take the room even of what it is to replace.
		for last := len(left) - 1; last >= 0 && m.tokensSize > maxTokens; last-- {
			m.tokensSize -= m.tokenSize(left[last])
			delete(m.kept, left[last].AccountID)
			m.tokens.Accounts = left[:last]
		}
	}
	for _, in := range brought {
		if _, known := m.accounts[in.ID]; !known && in.ID != "" {
			m.reserved += accountSize(in.ID, "")
		}
	}
}

// add adds an account with its access token, and reports whether there was room for it.
func (m *merger) add(in AnsweredAccount, access *store.Lifetime) bool {
	token := store.AccountToken{AccountID: in.ID, AccessToken: in.AccessToken, TokenID: in.TokenID}
	at, kept := m.kept[in.ID]
	size := m.tokensSize
	if kept {
		before := m.tokens.Accounts[at]
		if token.TokenID.Empty() {
			token.TokenID = before.TokenID
		}
		token.RefreshToken = before.RefreshToken
		size -= m.tokenSize(before)
	}
	if size += m.tokenSize(token); size > maxTokens || in.ID != "" && !m.name(in, access) {
		return false
	}
	m.tokensSize = size
	if kept {
		m.tokens.Accounts[at] = token
		return true
	}
	m.kept[in.ID] = len(m.tokens.Accounts)
	m.tokens.Accounts = append(m.tokens.Accounts, token)
	return true
}

// name adds an account to the grant, with its name if there is room for it.
func (m *merger) name(in AnsweredAccount, access *store.Lifetime) bool {
	at, known := m.accounts[in.ID]
	if !known {
		if m.accountsSize+accountSize(in.ID, "") > maxAccounts {
			return false
		}
		at = len(m.g.Accounts)
		m.accounts[in.ID] = at
		m.g.Accounts = append(m.g.Accounts, store.Account{ID: in.ID})
		m.accountsSize += accountSize(in.ID, "")
		m.reserved -= accountSize(in.ID, "")
	}
	account := &m.g.Accounts[at]
	account.ExpiresAt = access.ExpiresAt
	if in.Name == "" {
		return true
	}
	if size := m.accountsSize + accountSize(in.ID, in.Name) - accountSize(in.ID, account.Name); size+m.reserved <= maxAccounts {
		account.Name, m.accountsSize = in.Name, size
	}
	return true
}

// own adds an account's own refresh token, and reports whether there was room for it.
func (m *merger) own(id string, refreshToken secret.Text) bool {
	if _, known := m.accounts[id]; !known && !m.name(AnsweredAccount{ID: id}, &store.Lifetime{}) {
		return false
	}
	at, known := m.kept[id]
	if !known {
		at = len(m.tokens.Accounts)
		m.kept[id] = at
		m.tokens.Accounts = append(m.tokens.Accounts, store.AccountToken{AccountID: id})
	}
	token := &m.tokens.Accounts[at]
	m.tokensSize += textSize(refreshToken.Reveal()) - textSize(token.RefreshToken.Reveal())
	token.RefreshToken = refreshToken
	return m.tokensSize <= maxTokens
}

// bounded cuts the names and ids of an answer to what connects may have.
func bounded(a Answer) Answer {
	a.Accounts = slices.Clone(a.Accounts)
	for i := range a.Accounts {
		in := &a.Accounts[i]
		in.ID, in.Name = events.BoundedID(in.ID), events.CutName(in.Name)
	}
	return a
}
