package handlers

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// joined returns a grant with what another of the same refresh token newly tells,
// and adds its tokens to the grant's. A refresh under way is not disturbed: the
// chain stays as it is. spent: the other's refresh token was replaced since, so
// that its tokens are the older ones. told: something changed of which
// subscribers hear.
func (c *Connector) joined(g *store.Grant, tokens *store.TokenSet, in *store.Grant, brought store.TokenSet, spent bool) (next *store.Grant, told bool) {
	next = g.Clone()
	tokens.Accounts = slices.Clone(tokens.Accounts)
	newer := in.ConnectedAt.After(g.ConnectedAt)
	if newer && !spent {
		next.ConnectedAt = in.ConnectedAt
		if in.BrokerType != g.BrokerType { // Mesh is asked in the way in which it writes it now
			next.BrokerType, told = in.BrokerType, true
		}
		if in.BrokerName != "" && in.BrokerName != g.BrokerName {
			next.BrokerName, told = in.BrokerName, true
		}
	}
	if len(in.Labels) > 0 && (newer && !spent || len(g.Labels) == 0) && !maps.Equal(in.Labels, g.Labels) {
		next.Labels, told = in.Labels, true
	}
	given := map[string]time.Time{}
	for _, a := range g.Accounts {
		given[a.ID] = g.Given(a.ID)
	}
	comes := in.Clone().Access
	if comes != nil {
		comes.Version = 0 // it counts those of the other grant
	}
	unnamed := named(next, tokens, in)
	for _, account := range in.Accounts {
		own := next.Account(account.ID)
		if own == nil {
			given[account.ID] = in.Given(account.ID)
			next.Accounts = append(next.Accounts, account)
			own, told = &next.Accounts[len(next.Accounts)-1], true
		} else if account.Name != "" && account.Name != own.Name && (newer && !spent || own.Name == "") {
			own.Name, told = account.Name, true
		}
		if at := in.Given(account.ID); !spent && at.After(given[account.ID]) {
			given[account.ID] = at
		}
		its := brought.Account(account.ID)
		if unnamed != nil { // what a refresh brought is newer
			its = &store.AccountToken{AccountID: account.ID, AccessToken: unnamed.AccessToken, TokenID: unnamed.TokenID}
			account.ExpiresAt = nil
			if g.Access != nil {
				account.ExpiresAt = g.Access.ExpiresAt
			}
		}
		if its != nil && c.takes(g, tokens, in, *its, spent) {
			if at := tokens.Account(account.ID); at != nil {
				at.AccessToken, at.TokenID = its.AccessToken, its.TokenID
			} else {
				tokens.Accounts = append(tokens.Accounts, *its)
			}
			own.ExpiresAt, told = account.ExpiresAt, true
			if unnamed == nil {
				next.Access = sooner(next.Access, comes)
			}
		} else if at := tokens.Account(account.ID); its != nil && at != nil && at.AccessToken.Equal(its.AccessToken) && own.ExpiresAt == nil && account.ExpiresAt != nil {
			own.ExpiresAt, told = account.ExpiresAt, true
			next.Access = sooner(next.Access, comes)
		}
	}
	for i := range next.Accounts {
		at := given[next.Accounts[i].ID]
		if next.Accounts[i].ConnectedAt = &at; at.Equal(next.ConnectedAt) {
			next.Accounts[i].ConnectedAt = nil
		}
	}
	if tokens.TradeToken.Empty() && !brought.TradeToken.Empty() {
		tokens.TradeToken, told = brought.TradeToken, true
	}
	if stated := in.Refresh; !spent && next.Refresh != nil && stated != nil && stated.ExpiresAt != nil && !stated.Assumed &&
		(next.Refresh.ExpiresAt == nil || next.Refresh.Assumed) {
		next.Refresh.ExpiresAt, next.Refresh.Assumed, told = stated.ExpiresAt, false, true
	}
	return next, told
}

// takes reports whether a grant takes an access token that another of the same
// refresh token brings: it has none for the account, or its own has ended, or an
// earlier connect brought that one too.
func (c *Connector) takes(g *store.Grant, tokens *store.TokenSet, in *store.Grant, its store.AccountToken, spent bool) bool {
	own := tokens.Account(its.AccountID)
	if own == nil || own.AccessToken.Empty() {
		return true
	}
	now := c.Settler.Now()
	return !spent && in.ConnectedAt.After(g.ConnectedAt) && !in.Access.Over(now) && !own.AccessToken.Equal(its.AccessToken) &&
		(g.Access.Over(now) || g.Access.Since.Equal(g.Given(its.AccountID)))
}

// named takes out of a grant the account that stands for accounts whose names no
// answer told, if another grant tells them, and returns its token.
func named(next *store.Grant, tokens *store.TokenSet, in *store.Grant) *store.AccountToken {
	token := tokens.Account("")
	nameless := len(next.Accounts) == 0 && token != nil || len(next.Accounts) == 1 && next.Accounts[0].ID == ""
	if len(in.Accounts) == 0 || in.Account("") != nil || !nameless {
		return nil
	}
	next.Accounts, tokens.Accounts = nil, nil
	return token
}

// sooner returns the life that ends first. A grant is refreshed for that of its
// access tokens which ends first.
func sooner(a, b *store.Life) *store.Life {
	switch {
	case a == nil || a.ExpiresAt == nil && b != nil:
		return b
	case b == nil || b.ExpiresAt == nil || !b.ExpiresAt.Before(*a.ExpiresAt):
		return a
	}
	return b
}

// saveJoined saves what joined returned, and tells of it. It writes nothing where
// nothing has changed.
func (c *Connector) saveJoined(ctx context.Context, g, next *store.Grant, tokens store.TokenSet, with store.TokenSealer, told bool) error {
	if !told && next.ConnectedAt.Equal(g.ConnectedAt) {
		return nil
	}
	if err := c.prepareJoined(g, next, tokens, with, told); err != nil {
		return err
	}
	if err := c.Store.Save(ctx, next); err != nil {
		return err
	}
	if told {
		c.stored(ctx, next)
	}
	return nil
}

// prepareJoined makes what joined returned what is to be written and told.
func (c *Connector) prepareJoined(g, next *store.Grant, tokens store.TokenSet, with store.TokenSealer, told bool) error {
	if !told {
		return nil
	}
	next.Version++
	with.SealTo(next, tokens, c.Settler.Now(), false)
	if next.State == store.Active && g.Lease == nil && g.Tries == 0 && g.Waits == 0 {
		c.schedule(next)
	} else { // a refresh that failed is tried again when it was to be
		c.Settler.Schedule(next, next.Due)
	}
	return c.Settler.Announce(next, events.TokenStored, "")
}
