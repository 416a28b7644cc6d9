package handlers

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
)

// An answer may bring several refresh tokens for the accounts of one grant. One of them is
// the grant's. The others stay in its token set, where nobody presents them, until their
// accounts are split off: they become a grant of their own, which is written first. From
// then on the accounts and the refresh token belong to that grant, whatever the other
// document still says.

// splitAll splits accounts off from grants, and reports whether it changed anything.
func (c *Connector) splitAll(ctx context.Context, known []*store.Grant) (changed bool, err error) {
	ctx, _ = withOutcome(ctx) // no connect is passed over here
	for _, g := range known {
		if !g.HasSeparateRefreshTokens || g.State == store.Revoked {
			continue
		}
		done, err := c.split(ctx, g, known)
		if changed = changed || done; err != nil {
			return changed, err
		}
	}
	return changed, nil
}

func (c *Connector) split(ctx context.Context, g *store.Grant, known []*store.Grant) (changed bool, err error) {
	tokens, ok, err := c.openTokens(ctx, g)
	if err != nil || !ok {
		return false, err
	}
	revoked, _, err := c.revocations(ctx, g, g.Chain.Head())
	if err != nil {
		return false, err
	}
	gone := lostAccounts(g, known, revoked)
	var moved []string
	for _, a := range tokens.Accounts {
		if a.RefreshToken.Empty() || g.Account(a.AccountID) == nil || slices.Contains(moved, a.AccountID) {
			continue
		}
		var off []string
		for _, id := range sharing(tokens, a.RefreshToken) {
			switch {
			case g.Account(id) == nil:
			case !slices.Contains(gone, id):
				off = append(off, id)
			case splitBefore(id, g, known):
				moved = append(moved, id)
			}
		}
		if len(off) == 0 {
			continue
		}
		if err := c.splitOff(ctx, g, tokens, off, a.RefreshToken); err != nil {
			return false, err
		}
		moved = append(moved, off...)
	}
	if len(moved) == 0 {
		return false, nil
	}
	tracing.Log(ctx, c.opts.Log).Warn("accounts have refresh tokens of their own and become grants of their own", zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.Int("accounts", len(moved)))
	if !slices.ContainsFunc(g.Accounts, func(a store.Account) bool { return !slices.Contains(moved, a.ID) }) {
		return true, c.revoke(ctx, g, events.ReasonSplit)
	}
	return true, c.trim(ctx, g, moved, events.ReasonSplit)
}

// splitBefore reports whether a worker that could not finish has split an account off.
func splitBefore(accountID string, g *store.Grant, known []*store.Grant) bool {
	return slices.ContainsFunc(known, func(o *store.Grant) bool {
		return o.State != store.Revoked && o.Split > g.Split && events.SameBroker(o.BrokerType, g.BrokerType) &&
			o.Account(accountID) != nil && o.ConnectedSince(accountID).Equal(g.ConnectedSince(accountID))
	})
}

// sharing returns the ids of the accounts with this refresh token of their own.
func sharing(tokens store.TokenSet, refreshToken secret.Text) (ids []string) {
	for _, a := range tokens.Accounts {
		if a.RefreshToken.Equal(refreshToken) {
			ids = append(ids, a.AccountID)
		}
	}
	return ids
}

// splitOff stores a grant of accounts that have a refresh token of their own.
func (c *Connector) splitOff(ctx context.Context, g *store.Grant, tokens store.TokenSet, ids []string, refreshToken secret.Text) error {
	with, err := c.opts.Fingerprints.Sealer(ctx, g.UserID)
	if err != nil {
		return err
	}
	in := c.splitGrant(g, tokens, ids, refreshToken)
	in.grant.Chain = g.ChainFor(with.Key, tokens).WithoutCurrent() // a connect with one of these is an old one
	before, err := c.opts.Store.Get(ctx, in.grant.ID)
	if errors.Is(err, store.ErrNotFound) {
		_, err = c.insert(ctx, in, with, nil)
		return err
	}
	if err != nil {
		return err
	}
	return c.takeOver(ctx, in, before, with, time.Time{}) // its accounts have been connected again since
}

// splitGrant returns the grant of accounts that are split off from another.
func (c *Connector) splitGrant(g *store.Grant, tokens store.TokenSet, ids []string, refreshToken secret.Text) candidate {
	next := &store.Grant{
		// No connect has this id: a grant with that of a connect could have other accounts by now.
		ID: store.GrantID(g.UserID, g.BrokerType, append(slices.Clone(ids), g.ID)...), UserID: g.UserID, BrokerType: g.BrokerType, BrokerName: g.BrokerName, Labels: g.Labels,
		Published: g.Published, Split: g.Split + 1, SendAccess: g.SendAccess, Refresh: g.Clone().Refresh,
		AccountsDue: new(store.Milli(c.opts.Settler.Now())), // so that a disconnect in the meantime takes effect
	}
	set := store.TokenSet{RefreshToken: refreshToken, TradeToken: tokens.TradeToken, Metadata: tokens.Metadata, Origin: store.OriginOf(refreshToken)}
	for _, id := range ids {
		account := *g.Account(id)
		if at := g.ConnectedSince(id); at.After(next.ConnectedAt) {
			next.ConnectedAt = at
		}
		if its := tokens.Account(id); !its.AccessToken.Empty() {
			set.Accounts = append(set.Accounts, store.AccountToken{AccountID: id, AccessToken: its.AccessToken, TokenID: its.TokenID})
			if life := g.AccessOf(account); next.Access == nil || g.Newest(account) {
				next.Access = &store.Lifetime{Since: life.Since, ExpiresAt: life.ExpiresAt, Assumed: life.Assumed}
			}
		} else {
			account.ExpiresAt = nil
		}
		next.Accounts = append(next.Accounts, account)
	}
	setConnectedAt(next, g.ConnectedSince)
	next.KeepOlderAccess(g.AccessOf)
	return candidate{grant: next, tokens: set, reason: events.ReasonSplit, formerID: func(string) string { return next.ID }}
}
