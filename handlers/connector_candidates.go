package handlers

import (
	"context"
	"slices"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// candidate is a grant of a payload, not yet sealed.
type candidate struct {
	grant  *store.Grant
	tokens store.TokenSet
	// formerID is the id that earlier releases gave the grant for a broker type as written.
	formerID func(brokerType string) string
	// reason is that of the event about the grant.
	reason events.Reason
	// stated: the publisher stated when the tokens were obtained.
	stated bool
}

// matches reports whether a grant of the user is the candidate's, by its id or the id of an
// earlier release.
func (in candidate) matches(g *store.Grant) bool {
	return g.ID == in.grant.ID || events.SameBroker(g.BrokerType, in.grant.BrokerType) && (g.ID == in.formerID(g.BrokerType) || in.byKey(g))
}

// byKey reports whether a grant has the id that an earlier release derived from the
// broker's key.
func (in candidate) byKey(g *store.Grant) bool {
	return g.ID == in.formerID(events.BrokerKey(g.BrokerType))
}

// partOf reports whether a grant has accounts that the candidate lacks. They came to it
// with its refresh token, and stay with that.
func (in candidate) partOf(g *store.Grant) bool {
	return g.State != store.Revoked && len(in.grant.Accounts) > 0 &&
		slices.ContainsFunc(g.Accounts, func(a store.Account) bool { return in.grant.Account(a.ID) == nil })
}

// sharing returns those of a user's grants that are the candidate's or share an account.
func (in candidate) sharing(known []*store.Grant) (all []*store.Grant) {
	for _, g := range known {
		if in.matches(g) || events.SameBroker(g.BrokerType, in.grant.BrokerType) && slices.ContainsFunc(in.grant.Accounts, func(a store.Account) bool { return g.Account(a.ID) != nil }) {
			all = append(all, g)
		}
	}
	return all
}

// repeats reports whether a grant has all tokens of a candidate without a refresh token.
// For such a candidate a token id counts like a refresh token.
func (in candidate) repeats(g *store.Grant, tokens store.TokenSet) bool {
	return !slices.ContainsFunc(in.tokens.Accounts, func(its store.AccountToken) bool {
		own := tokens.Account(its.AccountID)
		return own == nil || !own.AccessToken.Equal(its.AccessToken) || !its.TokenID.Empty() && (g.Refresh != nil || !own.TokenID.Equal(its.TokenID))
	})
}

// withAlternativeID returns the candidate with another id, since a grant with more accounts has its
// own.
func (in candidate) withAlternativeID() candidate {
	g := *in.grant
	g.ID = store.AlternativeGrantID(g.ID)
	in.grant, in.formerID = &g, func(string) string { return g.ID }
	return in
}

// newerThan reports whether a candidate is newer than a grant with its id: connected later, or
// at the same time, published later, and with another refresh token.
func (in candidate) newerThan(g *store.Grant, key store.FingerprintKey) bool {
	if !in.grant.ConnectedAt.Equal(g.ConnectedAt) {
		return in.grant.ConnectedAt.After(g.ConnectedAt)
	}
	token := key.Of(in.tokens.RefreshToken)
	return in.grant.Published > g.Published && token != "" && g.Chain != nil && g.Chain.Key == key.ID && !g.Chain.Has(token)
}

// skipReason says why a candidate is passed over: it repeats what is stored, or is older.
func skipReason(in candidate, stored []*store.Grant) events.RejectedReason {
	if slices.ContainsFunc(stored, func(g *store.Grant) bool { return in.matches(g) && g.ConnectedAt.Equal(in.grant.ConnectedAt) }) {
		return events.RejectedRepeated
	}
	return events.RejectedOlder
}

// findStored returns the grant that a candidate takes over, of those that are the candidate's;
// nil: it becomes a new one. An id that an earlier release derived from the broker type as
// written stays only while that is written so: nothing else leads to it.
func (in candidate) findStored(stored []*store.Grant) (before *store.Grant) {
	for _, g := range stored {
		if g.ID == in.grant.ID || before == nil && (g.BrokerType == in.grant.BrokerType || in.byKey(g)) {
			before = g
		}
	}
	return before
}

// candidatesOf returns a candidate for each refresh token of a payload. The ids of grants
// whose accounts are unknown depend on the key.
func candidatesOf(in events.Connected, at time.Time, key store.FingerprintKey) []candidate {
	var out []candidate
	if a := in.Payload.AccessToken; a != nil {
		for _, group := range groupByRefreshToken(a.AccountTokens) {
			out = append(out, candidateOf(in.UserID, a, group, at, key))
		}
	}
	if d := in.Payload.DelayedAuth; d != nil && !slices.ContainsFunc(out, func(c candidate) bool {
		return events.SameBroker(c.grant.BrokerType, d.BrokerType) && c.tokens.RefreshToken.Equal(d.RefreshToken)
	}) {
		form := &events.AccessTokenPayload{BrokerType: d.BrokerType, BrokerName: d.BrokerName, RefreshTokenExpiresInSeconds: d.RefreshTokenExpiresInSeconds}
		out = append(out, candidateOf(in.UserID, form, []events.AccountToken{{RefreshToken: d.RefreshToken}}, at, key))
	}
	for i := range out {
		out[i].grant.ConnectedAt = at
		out[i].grant.Labels, out[i].tokens.Metadata = in.Labels, in.Metadata
		if !in.Published.IsZero() {
			out[i].grant.Published = in.Published.UnixNano()
		}
		out[i].stated = !in.ConnectedAt.IsZero()
		out[i].tokens.Origin = store.OriginOf(out[i].tokens.RefreshToken)
	}
	return out
}

// candidateOf returns the candidate of accounts that share a refresh token, or of one
// without. An account without an id is unknown until a refresh names it; until then its
// tokens are those of the grant.
func candidateOf(userID string, a *events.AccessTokenPayload, group []events.AccountToken, at time.Time, key store.FingerprintKey) candidate {
	access := lifetimeOf(at, a.ExpiresInSeconds)
	// Mesh keeps the token of an account with a token id and no refresh token alive. The
	// token id is handed out as the access token (Mesh's guide to managed tokens), and does
	// not expire. Without a refresh token a group is one account.
	managed := group[0].RefreshToken.Empty() && !group[0].TokenID.Empty()
	if managed {
		access = lifetimeOf(at, 0)
	}
	tokens := store.TokenSet{RefreshToken: group[0].RefreshToken}
	g := &store.Grant{UserID: userID, BrokerType: a.BrokerType, BrokerName: a.BrokerName, Accounts: []store.Account{}}
	for _, t := range group {
		if tokens.TradeToken.Empty() {
			tokens.TradeToken = t.TradeToken
		}
		if managed {
			t.AccessToken = t.TokenID
		}
		account := store.Account{ID: t.Account.AccountID, Name: t.Account.AccountName}
		if !t.AccessToken.Empty() {
			account.ExpiresAt, g.Access = access.ExpiresAt, access
		}
		if !t.AccessToken.Empty() || !t.TokenID.Empty() {
			tokens.Accounts = append(tokens.Accounts, store.AccountToken{AccountID: account.ID, AccessToken: t.AccessToken, TokenID: t.TokenID})
		}
		if account.ID != "" {
			g.Accounts = append(g.Accounts, account)
		}
	}
	if !tokens.RefreshToken.Empty() {
		g.Refresh = lifetimeOf(at, a.RefreshTokenExpiresInSeconds)
	}
	if ids := g.AccountIDs(); len(ids) > 0 {
		g.ID = store.GrantID(userID, a.BrokerType, ids...)
		return candidate{grant: g, tokens: tokens, formerID: func(brokerType string) string { return store.FormerGrantID(userID, brokerType, ids...) }}
	}
	known := tokens.RefreshToken // or else the only token
	if known.Empty() {
		known = tokens.Accounts[0].AccessToken
	}
	g.ID = store.DelayedGrantID(userID, a.BrokerType, key.Of(known))
	return candidate{grant: g, tokens: tokens, formerID: func(brokerType string) string { return store.FormerDelayedGrantID(userID, brokerType, known.Reveal()) }}
}

// groupByRefreshToken groups accounts by refresh token; each account without one is a
// group. Of an account that is named twice the last entry counts.
func groupByRefreshToken(tokens []events.AccountToken) [][]events.AccountToken {
	last := map[string]int{}
	for i, t := range tokens {
		last[t.Account.AccountID] = i
	}
	var groups [][]events.AccountToken
	byRefreshToken := map[string]int{}
	for i, t := range tokens {
		if t.Account.AccountID != "" && last[t.Account.AccountID] != i {
			continue
		}
		at, shared := byRefreshToken[t.RefreshToken.Reveal()]
		if !shared || t.RefreshToken.Empty() {
			at = len(groups)
			byRefreshToken[t.RefreshToken.Reveal()] = at
			groups = append(groups, nil)
		}
		groups[at] = append(groups[at], t)
	}
	return groups
}

func lifetimeOf(since time.Time, lasts events.Seconds) *store.Lifetime {
	life := &store.Lifetime{Since: since}
	if d := lasts.Duration(); d > 0 {
		life.ExpiresAt = new(since.Add(d))
	}
	return life
}

// connectOutcome records which candidates of one connect changed nothing.
type connectOutcome struct {
	// skipped says why candidates were passed over, by the ids of their grants.
	skipped map[string]events.RejectedReason
	// stored are the ids of the candidates that are stored, by this delivery of the connect or
	// an earlier one, by the ids of the grants that have them.
	stored map[string]string
	// unannounced are the ids of the grants without an event yet, since another has the same
	// refresh token.
	unannounced map[string]bool
}

type outcomeKey struct{}

// withOutcome returns a context for the work on one connect, and its outcome.
func withOutcome(ctx context.Context) (context.Context, *connectOutcome) {
	p := &connectOutcome{map[string]events.RejectedReason{}, map[string]string{}, map[string]bool{}}
	return context.WithValue(ctx, outcomeKey{}, p), p
}

// outcomeOf returns the outcome of the connect at work; those of other work go nowhere.
func outcomeOf(ctx context.Context) *connectOutcome {
	if p, ok := ctx.Value(outcomeKey{}).(*connectOutcome); ok {
		return p
	}
	_, p := withOutcome(ctx)
	return p
}

// skip records that a candidate is passed over.
func (p *connectOutcome) skip(in candidate, reason events.RejectedReason) {
	p.skipped[in.grant.ID] = reason
}

// store records that a candidate is stored in the grant with an id. inConflict: another
// grant has its refresh token, so that there is no event about it yet.
func (p *connectOutcome) store(in candidate, id string, inConflict bool) {
	p.stored[id], p.unannounced[id] = in.grant.ID, inConflict
}

// end records that a grant ends, and the candidate that is stored in it.
func (p *connectOutcome) end(g *store.Grant) {
	if id, ok := p.stored[g.ID]; ok {
		p.skipped[id] = events.RejectedOlder
	}
}

// reason says why a connect of so many candidates changed nothing; "": it did.
func (p *connectOutcome) reason(candidates int) events.RejectedReason {
	if candidates == 0 || len(p.skipped) < candidates {
		return ""
	}
	for _, reason := range p.skipped {
		if reason != events.RejectedRepeated {
			return events.RejectedOlder
		}
	}
	return events.RejectedRepeated
}
