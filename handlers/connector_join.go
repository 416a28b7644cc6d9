package handlers

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// join returns a grant with what is new in another of the same refresh token, and adds
// the other's tokens to the set. The chain stays as it is, for the sake of a refresh under
// way. spent: the other's refresh token was replaced since, so its tokens are older. changed:
// subscribers need an event.
func (c *Connector) join(g *store.Grant, tokens *store.TokenSet, in *store.Grant, brought store.TokenSet, spent bool) (next *store.Grant, changed bool) {
	next = g.Clone()
	tokens.Accounts = slices.Clone(tokens.Accounts)
	newer := byConnect(in, g) > 0
	if newer && !spent {
		next.ConnectedAt, next.Published = in.ConnectedAt, in.Published
		if in.BrokerType != g.BrokerType { // requests use the spelling that Mesh uses now
			next.BrokerType, changed = in.BrokerType, true
		}
		if in.BrokerName != "" && in.BrokerName != g.BrokerName {
			next.BrokerName, changed = in.BrokerName, true
		}
	}
	if len(in.Labels) > 0 && (newer && !spent || len(g.Labels) == 0) && !maps.Equal(in.Labels, g.Labels) {
		next.Labels, changed = in.Labels, true
	}
	given := map[string]time.Time{}
	for _, a := range g.Accounts {
		given[a.ID] = g.ConnectedSince(a.ID)
	}
	lives := lifetimesOf(g, tokens)
	comes := in.Clone().Access
	unnamed := replaceUnnamed(next, tokens, in)
	if unnamed != nil && g.Applied == 0 && (newer || len(in.Accounts) > 1) && slices.ContainsFunc(in.Accounts, func(a store.Account) bool { return !brought.Access(a.ID).Empty() }) {
		unnamed = nil // a connect brought it, and it is one of those
	}
	if len(in.Accounts) == 0 {
		changed = c.joinUnnamed(g, next, tokens, in, brought, spent, &lives) || changed
	}
	for _, account := range in.Accounts {
		own := next.Account(account.ID)
		if own == nil {
			given[account.ID] = in.ConnectedSince(account.ID)
			next.Accounts = append(next.Accounts, account)
			own, changed = &next.Accounts[len(next.Accounts)-1], true
		} else if account.Name != "" && account.Name != own.Name && (newer && !spent || own.Name == "") {
			own.Name, changed = account.Name, true
		}
		if at := in.ConnectedSince(account.ID); !spent && at.After(given[account.ID]) {
			given[account.ID] = at
		}
		its, life := brought.Account(account.ID), comes
		if comes != nil && !in.Newest(account) {
			life = in.AccessOf(account)
		}
		if unnamed != nil { // what a refresh brought is newer
			its, life = &store.AccountToken{AccountID: account.ID, AccessToken: unnamed.AccessToken, TokenID: unnamed.TokenID}, g.Access
			account.ExpiresAt = nil
			if g.Access != nil {
				account.ExpiresAt = g.Access.ExpiresAt
			}
		}
		switch at := tokens.Account(account.ID); {
		case its == nil:
		case its.AccessToken.Empty():
			if at == nil || at.TokenID.Empty() {
				setToken(tokens, store.AccountToken{AccountID: account.ID, AccessToken: tokens.Access(account.ID), TokenID: its.TokenID})
				changed = true
			}
		case c.takes(g, tokens, in, *its, spent):
			setToken(tokens, *its)
			own.ExpiresAt, changed = account.ExpiresAt, true
			lives.take(account.ID, life)
		case at.AccessToken.Equal(its.AccessToken) && own.ExpiresAt == nil && account.ExpiresAt != nil:
			own.ExpiresAt, changed = account.ExpiresAt, true
			lives.take(account.ID, life)
		}
	}
	lives.set(next, c.opts.Settler.Policy)
	setConnectedAt(next, func(accountID string) time.Time { return given[accountID] })
	if len(brought.Metadata) > 0 && (newer && !spent || len(tokens.Metadata) == 0) && !maps.Equal(brought.Metadata, tokens.Metadata) {
		tokens.Metadata, changed = brought.Metadata, true
	}
	if tokens.TradeToken.Empty() && !brought.TradeToken.Empty() {
		tokens.TradeToken, changed = brought.TradeToken, true
	}
	if stated := in.Refresh; !spent && next.Refresh != nil && stated != nil && stated.ExpiresAt != nil && !stated.Assumed &&
		(next.Refresh.ExpiresAt == nil || next.Refresh.Assumed) {
		next.Refresh.ExpiresAt, next.Refresh.Assumed, changed = stated.ExpiresAt, false, true
	}
	return next, changed
}

// setConnectedAt sets when each account of a grant was connected, if not with the grant.
func setConnectedAt(g *store.Grant, since func(accountID string) time.Time) {
	for i := range g.Accounts {
		at := since(g.Accounts[i].ID)
		if g.Accounts[i].ConnectedAt = &at; at.Equal(g.ConnectedAt) {
			g.Accounts[i].ConnectedAt = nil
		}
	}
}

// takes reports whether a grant takes an access token of another with the same refresh
// token: it has none for the account, or its own has expired or is of an earlier connect.
func (c *Connector) takes(g *store.Grant, tokens *store.TokenSet, in *store.Grant, its store.AccountToken, spent bool) bool {
	own := tokens.Account(its.AccountID)
	if own == nil || own.AccessToken.Empty() {
		return true
	}
	now := c.opts.Settler.Now()
	return !spent && in.ConnectedAt.After(g.ConnectedAt) && !in.Access.Expired(now) && !own.AccessToken.Equal(its.AccessToken) &&
		(g.Access.Expired(now) || g.Access.Since.Equal(g.ConnectedSince(its.AccountID)))
}

// replaceUnnamed removes the account that stands for accounts without names from a grant, if
// another grant names them, and returns its token, if there is only one.
func replaceUnnamed(next *store.Grant, tokens *store.TokenSet, in *store.Grant) *store.AccountToken {
	token := tokens.Account("")
	nameless := len(next.Accounts) == 0 && token != nil || len(next.Accounts) == 1 && next.Accounts[0].ID == ""
	if len(in.Accounts) == 0 || in.Account("") != nil || !nameless {
		return nil
	}
	token = unnamed(tokens)
	next.Accounts, tokens.Accounts = nil, nil
	return token
}

// unnamed returns the token of the account without a name; nil: there is none, or several,
// and nobody knows whose they are.
func unnamed(tokens *store.TokenSet) (sole *store.AccountToken) {
	for i, t := range tokens.Accounts {
		switch {
		case t.AccountID != "" || sole != nil && t.AccessToken.Equal(sole.AccessToken):
		case sole != nil:
			return nil
		default:
			sole = &tokens.Accounts[i]
		}
	}
	return sole
}

// joinUnnamed is join for another grant without accounts. Its access token is that of
// the grant's accounts, if it is the only one of the login.
func (c *Connector) joinUnnamed(g, next *store.Grant, tokens *store.TokenSet, in *store.Grant, brought store.TokenSet, spent bool, lives *lifetimes) (changed bool) {
	its := unnamed(&brought)
	if its == nil || its.AccessToken.Empty() || len(next.Accounts) > 1 && len(lives.of) > 0 {
		return false
	}
	take := func(token store.AccountToken) bool {
		takes := c.takes(g, tokens, in, token, spent)
		if takes {
			setToken(tokens, token)
			lives.take(token.AccountID, in.Clone().Access)
		}
		return takes
	}
	for i := range next.Accounts {
		token := store.AccountToken{AccountID: next.Accounts[i].ID, AccessToken: its.AccessToken}
		if len(next.Accounts) == 1 {
			token.TokenID = its.TokenID
		}
		if take(token) {
			next.Accounts[i].ExpiresAt, changed = in.Access.ExpiresAt, true
		}
	}
	return changed || len(next.Accounts) == 0 && take(*its)
}

func setToken(tokens *store.TokenSet, its store.AccountToken) {
	if at := tokens.Account(its.AccountID); at != nil {
		if at.AccessToken = its.AccessToken; !its.TokenID.Empty() {
			at.TokenID = its.TokenID
		}
		return
	}
	tokens.Accounts = append(tokens.Accounts, its)
}

// lifetimes are those of the access tokens of a grant that another joins.
type lifetimes struct {
	before *store.Lifetime            // the grant's own
	of     map[string]*store.Lifetime // by account
	taken  []*store.Lifetime          // from the other
}

func lifetimesOf(g *store.Grant, tokens *store.TokenSet) lifetimes {
	l := lifetimes{before: g.Access, of: map[string]*store.Lifetime{}}
	for _, a := range g.Accounts {
		if !tokens.Access(a.ID).Empty() {
			l.of[a.ID] = g.AccessOf(a)
		}
	}
	return l
}

func (l *lifetimes) take(accountID string, life *store.Lifetime) {
	if life != nil {
		l.of[accountID] = life
		l.taken = append(l.taken, life)
	}
}

// set sets them in the grant. It is refreshed for the first to end of those taken and its
// own; accounts with another are served until that ends.
func (l *lifetimes) set(next *store.Grant, policy refresher.Policy) {
	if len(l.taken) == 0 {
		return
	}
	var first *store.Lifetime
	for _, life := range l.of {
		if life == l.before {
			first = l.before // an account still has it
		}
	}
	for _, life := range l.taken {
		if first == nil || life.ExpiresAt != nil && (first.ExpiresAt == nil || life.ExpiresAt.Before(*first.ExpiresAt)) {
			first = life
		}
	}
	if first != l.before {
		own := *first
		own.Version = 0 // it is one of the other grant
		next.Access = &own
	}
	next.KeepOlderAccess(func(a store.Account) *store.Lifetime {
		if life := l.of[a.ID]; life != nil {
			return life
		}
		return next.AccessOf(a)
	})
	if !next.HasSeparateRefreshTokens {
		next.AccountsDue = policy.AccountsDue(next)
	}
}

// saveJoined saves what join returned, if anything has changed, and announces it.
func (c *Connector) saveJoined(ctx context.Context, g, next *store.Grant, tokens store.TokenSet, with store.TokenSealer, changed bool) error {
	if !changed && byConnect(next, g) == 0 {
		return nil
	}
	if err := c.prepareJoined(g, next, tokens, with, changed); err != nil {
		return err
	}
	if err := c.opts.Store.Save(ctx, next); err != nil {
		return err
	}
	if changed {
		c.announce(ctx, next)
	}
	return nil
}

// prepareJoined prepares what join returned for saving: it seals the tokens, and adds the
// schedule and the event.
func (c *Connector) prepareJoined(g, next *store.Grant, tokens store.TokenSet, with store.TokenSealer, changed bool) error {
	if !changed {
		return nil
	}
	next.Version++
	with.SealTo(next, tokens, c.opts.Settler.Now(), false)
	if next.State == store.Active && g.Lease == nil && g.Attempts == 0 && g.Deferrals == 0 {
		c.schedule(next, g.Applied == 0)
	} else { // a failed refresh keeps its time
		c.opts.Settler.Schedule(next, next.Due)
	}
	return c.opts.Settler.Announce(next, events.TokenStored, "")
}
