package refresher

import (
	"slices"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

// shares says whose the tokens of an answer are. Entries may come without an account
// (Mesh's own example has one), twice, or for accounts that the grant does not have; a
// refresh token may echo the presented one.
type shares struct {
	refreshToken secret.Text // the grant's next one; empty: the one at hand stays
	// own are the refresh tokens of single accounts, by id, that differ from the grant's:
	// they become grants of their own.
	own map[string]secret.Text
	// accounts have a new access token, each once. The id is empty only where none is known.
	accounts   []AnsweredAccount
	byPosition bool // tokens without an account went to accounts by their order
	// ownerless is how many entries have tokens without an owner. Access tokens of accounts
	// that the grant does not have don't count.
	ownerless int
	hasHidden bool // one of them has a new access token
}

// share is an entry of an answer with what is known about its owner.
type share struct {
	AnsweredAccount
	owner owner
}

type owner int

const (
	nobody   owner = iota // the entry names no account, and none could be found
	everyone              // the entry names no account, and is for all of the grant
	theOwn                // an account of the grant
	another               // an account that the grant does not have
)

// whose finds out whose the tokens of an answer are. tokens is the set at hand.
func whose(g *store.Grant, tokens *store.TokenSet, a Answer) shares {
	s := sharesIn(g, tokens, a)
	if s.hasHidden {
		// What repeats an access token at hand does not stand for the new one.
		a.Accounts = slices.Clone(a.Accounts)
		for i, in := range a.Accounts {
			if containsAccessToken(tokens, in.AccessToken) {
				a.Accounts[i].AccessToken = secret.Text{}
			}
		}
		a.Accounts = slices.DeleteFunc(a.Accounts, AnsweredAccount.blank)
		if containsAccessToken(tokens, a.AccessToken) {
			a.AccessToken = secret.Text{}
		}
		s = sharesIn(g, tokens, a)
	}
	return s
}

func sharesIn(g *store.Grant, tokens *store.TokenSet, a Answer) shares {
	entries := sharesOf(a, tokens.RefreshToken)
	known := knownIDs(g)
	matchNames(g, entries)
	known = claim(entries, known)
	s := shares{own: map[string]secret.Text{}}
	if !a.Partial || len(known) < 2 { // else what named their accounts may be lost
		s.byPosition = placeNameless(entries, known, tokens)
	}
	entries = placeDeprecated(entries, known, a.AccessToken, a.Partial)
	s.chooseRefreshTokens(entries, known, a.withoutEchoes(tokens.RefreshToken).RefreshToken)
	if s.refreshToken.Empty() && a.Partial {
		s.refreshToken = a.onlyUnplaced(tokens.RefreshToken)
	}
	s.chooseAccessTokens(entries, known, tokens)
	s.countOwnerless(a, entries, tokens)
	return s
}

// rotates reports whether an answer replaces the presented refresh token of a grant.
func (a Answer) rotates(g *store.Grant, presented secret.Text) bool {
	return !whose(g, &store.TokenSet{RefreshToken: presented}, a).refreshToken.Empty()
}

func (a Answer) withoutEchoes(presented secret.Text) Answer {
	a.Accounts, a.Unplaced = slices.Clone(a.Accounts), slices.Clone(a.Unplaced)
	a.forget(presented)
	return a
}

// sharesOf returns the entries of an answer. They get the deprecated access token if none
// has one or names an account; else it usually repeats the first.
func sharesOf(a Answer, presented secret.Text) []share {
	a = a.withoutEchoes(presented)
	a.Accounts = slices.DeleteFunc(a.Accounts, func(in AnsweredAccount) bool { return in.blank() && a.AccessToken.Empty() })
	if len(a.Accounts) == 0 && !a.AccessToken.Empty() {
		a.Accounts = []AnsweredAccount{{}}
	}
	toEach := !slices.ContainsFunc(a.Accounts, func(in AnsweredAccount) bool { return !in.AccessToken.Empty() || in.named() })
	entries := make([]share, len(a.Accounts))
	for i, in := range a.Accounts {
		entries[i].AnsweredAccount = in
		if toEach {
			entries[i].AccessToken = a.AccessToken
		}
	}
	return entries
}

// placeDeprecated adds the deprecated access token where no entry has one: for the accounts
// that the entries name, or the only one. damaged: what named another may be lost.
func placeDeprecated(entries []share, known []string, deprecated secret.Text, damaged bool) []share {
	in := share{AnsweredAccount: AnsweredAccount{AccessToken: deprecated}, owner: everyone}
	if deprecated.Empty() || damaged && len(known) > 1 {
		return entries
	}
	named := map[string]bool{}
	for _, other := range entries {
		if !other.AccessToken.Empty() || other.owner == another {
			return entries
		}
		if other.ID != "" {
			named[other.ID], in.ID, in.owner = true, other.ID, theOwn
		}
	}
	if len(named) > 1 { // it is for each of them
		for i := range entries {
			if entries[i].ID != "" {
				entries[i].AccessToken = deprecated
			}
		}
		return entries
	}
	if len(known) > 1 && len(named) != 1 {
		return entries
	}
	return append(entries, in)
}

// knownIDs are the ids of a grant's accounts, of which earlier releases could leave one empty.
func knownIDs(g *store.Grant) (ids []string) {
	for _, account := range g.Accounts {
		if account.ID != "" {
			ids = append(ids, account.ID)
		}
	}
	return ids
}

// matchNames gives an entry without an id that of the one account with its display name.
func matchNames(g *store.Grant, entries []share) {
	byName, entriesOf := map[string][]string{}, map[string]int{}
	for _, account := range g.Accounts {
		if account.Name != "" && account.ID != "" {
			byName[account.Name] = append(byName[account.Name], account.ID)
		}
	}
	for _, in := range entries {
		entriesOf[in.Name]++
	}
	for i, in := range entries {
		if ids := byName[in.Name]; in.ID == "" && len(ids) == 1 && entriesOf[in.Name] == 1 {
			entries[i].ID = ids[0]
		}
	}
}

// claim marks the entries of the grant's accounts. Other accounts may belong to a newer
// grant of the user; they become this grant's if it knows none yet, or if the answer
// names only such. It returns the ids that are the grant's then.
func claim(entries []share, known []string) []string {
	own := make(map[string]bool, len(known))
	for _, id := range known {
		own[id] = true
	}
	foreignOnly := !slices.ContainsFunc(entries, func(in share) bool { return in.ID == "" || own[in.ID] })
	adopt := len(known) == 0 || foreignOnly
	for i := range entries {
		in := &entries[i]
		switch {
		case in.ID == "":
		case own[in.ID]:
			in.owner = theOwn
		case adopt:
			in.owner, own[in.ID] = theOwn, true
			known = append(known, in.ID)
		default:
			in.owner = another
		}
	}
	return known
}

// placeNameless finds owners for the entries that name none: a single access token is for
// all accounts; as many entries as there are accounts without one go by their order. It
// reports whether the order decided.
func placeNameless(entries []share, known []string, tokens *store.TokenSet) (byPosition bool) {
	if !slices.ContainsFunc(entries, func(in share) bool { return in.ID == "" }) {
		return false
	}
	named := map[string]bool{}
	repeated := map[string]bool{}
	for _, in := range entries {
		if in.ID != "" && (len(known) > 1 || !in.AccessToken.Empty()) {
			named[in.ID], repeated[in.AccessToken.Reveal()] = true, true
		}
	}
	var nameless []*share
	for i := range entries {
		if in := &entries[i]; in.ID == "" && !repeated[in.AccessToken.Reveal()] || in.ID == "" && in.AccessToken.Empty() {
			nameless = append(nameless, in)
		}
	}
	left := slices.DeleteFunc(slices.Clone(known), func(id string) bool { return named[id] })
	if bearers := slices.DeleteFunc(slices.Clone(nameless), func(in *share) bool { return in.AccessToken.Empty() }); len(nameless) != len(left) && len(bearers) > 0 {
		nameless = bearers
	}
	toAll := func(entries []*share) {
		for _, in := range entries {
			in.owner = everyone
		}
	}
	switch {
	case len(nameless) == 0:
	case len(known) == 0:
		toAll(nameless)
	case len(nameless) == len(left) && (len(left) < len(known) || !alike(nameless, refreshToken) || !alike(nameless, accessToken)):
		for i, in := range nameless {
			in.ID, in.owner = left[i], theOwn
		}
		return true
	case len(left) < len(known):
	case alike(nameless, accessToken):
		toAll(nameless)
	case len(known) == 1:
		// Several for one account: it is the one that is not at hand already.
		fresh := slices.DeleteFunc(nameless, func(in *share) bool { return in.AccessToken.Empty() || containsAccessToken(tokens, in.AccessToken) })
		if alike(fresh, accessToken) {
			toAll(fresh)
		}
	}
	return false
}

func accessToken(in *share) secret.Text  { return in.AccessToken }
func refreshToken(in *share) secret.Text { return in.RefreshToken }

// alike reports whether entries hold no two different tokens of a kind.
func alike(entries []*share, kind func(*share) secret.Text) bool {
	var one secret.Text
	for _, in := range entries {
		switch token := kind(in); {
		case token.Empty():
		case one.Empty():
			one = token
		case !one.Equal(token):
			return false
		}
	}
	return true
}

func containsAccessToken(tokens *store.TokenSet, token secret.Text) bool {
	return slices.ContainsFunc(tokens.Accounts, func(t store.AccountToken) bool { return t.AccessToken.Equal(token) })
}

// chooseRefreshTokens prefers those of the grant's own accounts, then those that
// name no account, then the deprecated one.
func (s *shares) chooseRefreshTokens(entries []share, known []string, deprecated secret.Text) {
	byAccount := make(map[string]secret.Text, len(entries))
	for _, in := range entries {
		if in.owner == theOwn && byAccount[in.ID].Empty() {
			byAccount[in.ID] = in.RefreshToken
		}
	}
	for _, id := range known {
		switch token := byAccount[id]; {
		case token.Empty() || token.Equal(s.refreshToken):
		case s.refreshToken.Empty():
			s.refreshToken = token
		default:
			s.own[id] = token
		}
	}
	for _, in := range entries {
		if s.refreshToken.Empty() && (in.owner == nobody || in.owner == everyone) {
			s.refreshToken = in.RefreshToken
		}
	}
	if s.refreshToken.Empty() {
		s.refreshToken = deprecated
	}
}

// chooseAccessTokens lists each account once. Of several entries of one account
// that counts whose token is not at hand already, then the last.
func (s *shares) chooseAccessTokens(entries []share, known []string, tokens *store.TokenSet) {
	at := map[string]int{}
	add := func(in AnsweredAccount) {
		i, twice := at[in.ID]
		if !twice {
			at[in.ID] = len(s.accounts)
			s.accounts = append(s.accounts, in)
			return
		}
		before := &s.accounts[i]
		if in.Name == "" {
			in.Name = before.Name
		}
		if in.TokenID.Empty() {
			in.TokenID = before.TokenID
		}
		if !containsAccessToken(tokens, in.AccessToken) || containsAccessToken(tokens, before.AccessToken) {
			*before = in
		}
	}
	for _, in := range entries {
		switch {
		case in.AccessToken.Empty():
		case in.owner == theOwn:
			add(in.AnsweredAccount)
		case in.owner == everyone && len(known) == 0:
			if len(s.accounts) == 0 {
				add(AnsweredAccount{AccessToken: in.AccessToken, TokenID: in.TokenID})
			}
		case in.owner == everyone:
			for _, id := range known {
				account := AnsweredAccount{ID: id, AccessToken: in.AccessToken}
				if len(known) == 1 {
					account.Name, account.TokenID = in.Name, in.TokenID
				}
				add(account)
			}
		}
	}
}

// countOwnerless counts the entries with tokens that have no place, which addLeftovers keeps.
func (s *shares) countOwnerless(a Answer, entries []share, tokens *store.TokenSet) {
	placed := map[secret.Text]bool{{}: true, tokens.RefreshToken: true, s.refreshToken: true}
	for _, t := range tokens.Accounts {
		placed[t.AccessToken], placed[t.TokenID] = true, true
	}
	for _, in := range s.accounts {
		placed[in.AccessToken], placed[in.TokenID] = true, true
	}
	for _, token := range s.own {
		placed[token] = true
	}
	count := func(in share) {
		s.hasHidden = s.hasHidden || in.owner != another && !placed[in.AccessToken]
		if !placed[in.RefreshToken] || in.owner != another && (!placed[in.AccessToken] || !placed[in.TokenID]) {
			s.ownerless++
		}
		placed[in.AccessToken], placed[in.RefreshToken], placed[in.TokenID] = true, true, true
	}
	for _, in := range entries {
		count(in)
	}
	count(share{AnsweredAccount: AnsweredAccount{AccessToken: a.AccessToken, RefreshToken: a.RefreshToken}})
}
