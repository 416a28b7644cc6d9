package handlers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
)

// put stores a candidate, unless what is known is as new. It may return the
// user's grants, as they were read after that.
func (c *Connector) put(ctx context.Context, in candidate, sealer envelope.Sealer) ([]*store.Grant, error) {
	// Most connects bring what is new. Where an earlier release may have the grant
	// under an id of its own, look first.
	if in.formerID(in.grant.BrokerType) == in.grant.ID {
		known, err := c.insert(ctx, in, sealer, nil)
		if !errors.Is(err, store.ErrConflict) {
			return known, err
		}
	}
	for {
		known, err := c.Store.ByUser(ctx, in.grant.UserID)
		if err != nil {
			return nil, err
		}
		revoked, err := c.revoked(ctx, in.grant)
		if err != nil {
			return nil, err
		}
		if superseded(in.grant, known, revoked) {
			return nil, nil
		}
		stored := slices.DeleteFunc(slices.Clone(known), func(g *store.Grant) bool { return !in.is(g) })
		for _, g := range stored {
			if !in.grant.ConnectedAt.After(g.ConnectedAt) {
				return nil, nil // the same again, or older
			}
			if repeated, err := c.repeats(ctx, in, g); repeated || err != nil {
				return nil, err
			}
		}
		before := in.place(stored)
		if before == nil {
			err := c.replaceDelayed(ctx, stored)
			if err == nil {
				known, err = c.insert(ctx, in, sealer, stored)
			}
			if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
				continue
			}
			return known, err
		}
		next := *in.grant
		next.ID = before.ID
		next.Version, next.Rev, next.Epoch, next.Applied, next.Outbox = before.Version, before.Rev, before.Epoch, before.Epoch, before.Outbox
		if err := c.prepare(&next, in.tokens, sealer); err != nil {
			return nil, err
		}
		err = c.Store.Save(ctx, &next)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if before.Removal != nil {
			tracing.Log(ctx, c.Log).Info("a removal at Mesh is dropped: the user has connected again", zap.String("grant", next.ID), zap.String("broker", next.BrokerType))
		}
		c.stored(ctx, &next)
		return nil, nil
	}
}

// place returns the grant whose document a candidate takes over, of those that are
// the candidate's; nil: it gets a document of its own. An id of an earlier release
// is kept as long as the broker type is written as it was: it can't be derived
// from any other.
func (in candidate) place(stored []*store.Grant) (before *store.Grant) {
	for _, g := range stored {
		if g.ID == in.grant.ID || before == nil && g.BrokerType == in.grant.BrokerType {
			before = g
		}
	}
	return before
}

// replaceDelayed revokes those grants whose accounts are not known and that hold
// nothing but the refresh token of a new one. (Where accounts are known, resolve
// does it.)
func (c *Connector) replaceDelayed(ctx context.Context, grants []*store.Grant) error {
	for _, g := range grants {
		if g.State == store.Revoked || len(g.Accounts) > 0 {
			continue
		}
		if err := c.revoke(ctx, g, events.ReasonReplaced); err != nil {
			return err
		}
	}
	return nil
}

// insert stores a candidate as a new grant. One that turns out to be superseded
// is taken back before anything is told of it. ErrConflict: there is such a
// grant, perhaps under an id of an earlier release; replaced are those of which
// the caller knows.
func (c *Connector) insert(ctx context.Context, in candidate, sealer envelope.Sealer, replaced []*store.Grant) ([]*store.Grant, error) {
	revoked, err := c.revoked(ctx, in.grant)
	if err != nil || superseded(in.grant, nil, revoked) {
		return nil, err
	}
	next := *in.grant
	if err := c.prepare(&next, in.tokens, sealer); err != nil {
		return nil, err
	}
	if err := c.Store.Insert(ctx, &next); err != nil {
		return nil, err
	}
	known, err := c.Store.ByUser(ctx, next.UserID)
	if err != nil {
		return nil, err
	}
	overlooked := slices.ContainsFunc(known, func(g *store.Grant) bool {
		return g.ID != next.ID && in.is(g) && !slices.ContainsFunc(replaced, func(r *store.Grant) bool { return r.ID == g.ID })
	})
	if overlooked || superseded(&next, known, revoked) {
		err := c.Store.Delete(ctx, &next)
		if errors.Is(err, store.ErrConflict) {
			err = nil // somebody has sorted it out
		}
		if err == nil && overlooked {
			err = fmt.Errorf("inserting grant %s beside that of an earlier release: %w", next.ID, store.ErrConflict)
		}
		return nil, err
	}
	c.stored(ctx, &next)
	return known, nil
}

// prepare makes the grant of a candidate what is to be written and told.
func (c *Connector) prepare(next *store.Grant, tokens store.TokenSet, sealer envelope.Sealer) error {
	next.State = store.Active
	next.Version++
	next.Sealed = store.SealTokens(sealer, tokens, next.Binding())
	due := c.Settler.Policy.Next(next)
	if now := store.Milli(c.Settler.Now()); due != nil && due.At.Before(now) {
		due.At = now // nobody could do it earlier, so it is not late
	}
	c.Settler.Schedule(next, due)
	return c.Settler.Announce(next, events.TokenStored, "")
}

// stored records a grant that was written, and announces it.
func (c *Connector) stored(ctx context.Context, g *store.Grant) {
	c.Audit.Add(audit.Record{Action: audit.Sealed, Outcome: audit.OutcomeConnect, User: g.UserID, Grants: auditGrant(g)})
	tracing.Log(ctx, c.Log).Info("stored", zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.Int64("version", g.Version))
	c.Dispatcher.Send(ctx, g)
}

// repeats reports whether a connect that claims to be newer brings the refresh
// token with which a living grant was connected and which has been replaced
// since: an event published again without its connectedAt. To take it would
// mean to present a refresh token that is spent.
func (c *Connector) repeats(ctx context.Context, in candidate, known *store.Grant) (bool, error) {
	if known.State != store.Active || known.Refresh == nil {
		return false, nil
	}
	tokens, err := store.OpenTokens(ctx, c.Envelope, known.Sealed, known.Binding())
	if errors.Is(err, envelope.ErrSealed) {
		return false, nil // what can't be read is better replaced
	}
	if err != nil {
		return false, err
	}
	repeated := tokens.Repeats(in.tokens.RefreshToken)
	if repeated {
		c.Log.Warn("a connect was published again after its refresh token was replaced, and is passed over", zap.String("grant", known.ID))
	}
	return repeated, nil
}
