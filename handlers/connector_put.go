package handlers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
)

// put stores a candidate, unless what is known is as new. It may return what was
// seen of the user's grants after that.
func (c *Connector) put(ctx context.Context, in candidate, with store.TokenSealer) (*seen, error) {
	// Most connects bring what is new. Where an earlier release may have the grant
	// under an id of its own, or nothing but the access token tells that it is a
	// repetition, look first.
	if in.formerID(in.grant.BrokerType) == in.grant.ID && !in.tokens.RefreshToken.Empty() {
		seen, err := c.insert(ctx, in, with, nil)
		if !errors.Is(err, store.ErrConflict) {
			return seen, err
		}
	}
	for {
		known, err := c.Store.ByUser(ctx, in.grant.UserID)
		if err != nil {
			return nil, err
		}
		revoked, until, err := c.revoked(ctx, in.grant, with.Key.Of(in.tokens.RefreshToken))
		if err != nil {
			return nil, err
		}
		if superseded(in.grant, known, revoked) {
			passesOf(ctx).pass(in, passedFor(in, known))
			return nil, nil
		}
		stored := slices.DeleteFunc(slices.Clone(known), func(g *store.Grant) bool { return !in.is(g) })
		if slices.ContainsFunc(stored, func(g *store.Grant) bool { return !in.after(g, with.Key) && !in.partOf(g) }) {
			reason := passedFor(in, stored) // the same again, or older
			passesOf(ctx).pass(in, reason)
			for _, g := range stored {
				if reason == events.RejectedRepeated && g.ConnectedAt.Equal(in.grant.ConnectedAt) {
					passesOf(ctx).stands(in, g.ID, false)
				}
			}
			return nil, nil
		}
		var after *seen
		may := stored
		if in.tokens.RefreshToken.Empty() {
			may = in.sharing(known)
		}
		done, err := c.repeated(ctx, in, may, with)
		if err == nil && !done {
			before := in.place(stored)
			if before != nil && in.partOf(before) {
				in = in.beside()
				continue
			}
			if before != nil {
				err = c.takeOver(ctx, in, before, with, until)
			} else if err = c.replaceDelayed(ctx, stored); err == nil {
				after, err = c.insert(ctx, in, with, stored)
			}
		}
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
			continue
		}
		return after, err
	}
}

// after reports whether a candidate is newer than a grant with its id. A login of the
// same time that was published later is, if it brings another refresh token.
func (in candidate) after(g *store.Grant, key store.FingerprintKey) bool {
	if !in.grant.ConnectedAt.Equal(g.ConnectedAt) {
		return in.grant.ConnectedAt.After(g.ConnectedAt)
	}
	token := key.Of(in.tokens.RefreshToken)
	return in.grant.Published > g.Published && token != "" && g.Chain != nil && g.Chain.Key == key.ID && !g.Chain.Has(token)
}

// passedFor says why a candidate is passed over for what is stored: it is the same
// again, or older.
func passedFor(in candidate, stored []*store.Grant) events.RejectedReason {
	if slices.ContainsFunc(stored, func(g *store.Grant) bool { return in.is(g) && g.ConnectedAt.Equal(in.grant.ConnectedAt) }) {
		return events.RejectedRepeated
	}
	return events.RejectedOlder
}

// repeated handles a connect that claims to be newer than what is stored, but
// whose refresh token a grant of the same accounts has at hand, or had: the event
// was published again without its connectedAt, or the institution gives the
// same token at each login. A token that was replaced must not come back. Of a connect
// without a refresh token that goes by its access token. false: it is another token, or
// the grant is no longer refreshed.
func (c *Connector) repeated(ctx context.Context, in candidate, stored []*store.Grant, with store.TokenSealer) (done bool, err error) {
	token := with.Key.Of(in.tokens.RefreshToken)
	for _, g := range stored {
		if g.State == store.Revoked {
			continue
		}
		tokens, err := store.OpenTokens(ctx, c.Envelope, g.Sealed, g.Binding())
		if errors.Is(err, envelope.ErrSealed) {
			continue // what can't be read is better replaced
		}
		if err != nil {
			return false, err
		}
		chain := g.ChainFor(with.Key, tokens)
		switch {
		case token == "" && !in.repeats(g, tokens):
		case token == "" && g.State == store.Expired:
			// Unless the publisher says when the tokens were obtained, they ended when they did.
			if in.stated || g.Access == nil || g.Access.ExpiresAt == nil || g.Access.Assumed {
				continue
			}
			passesOf(ctx).pass(in, events.RejectedRepeated)
			return true, nil
		case token == "":
			next, told := c.joined(g, &tokens, in.grant, in.tokens, false)
			return true, c.saveJoined(ctx, g, next, tokens, with, told)
		case chain.Spent(token) != nil:
			c.Log.Warn("a connect was published again after its refresh token was replaced, and is passed over", zap.String("grant", g.ID))
			passesOf(ctx).pass(in, events.RejectedRepeated)
			return true, nil
		case chain.Head() == token && (g.State == store.Active || g.MFA != nil || g.Lease != nil):
			next, told := c.joined(g, &tokens, in.grant, in.tokens, false)
			return true, c.saveJoined(ctx, g, next, tokens, with, told)
		}
	}
	return false, nil
}

// takeOver replaces a grant by a candidate. An answer to a refresh under way no
// longer counts, but where it replaces the refresh token that the connect brought
// too. Until until somebody may be presenting that token for a grant that is gone.
func (c *Connector) takeOver(ctx context.Context, in candidate, before *store.Grant, with store.TokenSealer, until time.Time) error {
	next := *in.grant
	next.ID = before.ID
	next.Version, next.Rev, next.Epoch, next.Applied, next.Outbox = before.Version, before.Rev, before.Epoch, before.Epoch, before.Outbox
	if len(next.Labels) == 0 {
		next.Labels = before.Labels
	}
	next.Chain = before.Chain
	if next.Chain == nil || next.Chain.Key != with.Key.ID || before.Left {
		next.Chain = nil
		tokens, ok, err := c.opened(ctx, before)
		switch {
		case ok:
			next.Chain = before.ChainFor(with.Key, tokens)
			next.Left, in.tokens.Left = before.Left, tokens.Left // on its way to the dead letters
		case before.Left && err != nil:
			return err
		}
	}
	if next.Chain == nil {
		next.Chain = in.grant.Chain
	}
	if next.Chain.Head() == with.Key.Of(in.tokens.RefreshToken) {
		next.Applied = before.Applied
	}
	if err := c.prepare(&next, in, with); err != nil {
		return err
	}
	if until.After(c.Settler.Now()) {
		next.Lease = awaiting(until)
	}
	if err := c.Store.Save(ctx, &next); err != nil {
		return err
	}
	if before.Removal != nil {
		tracing.Log(ctx, c.Log).Info("a removal at Mesh is dropped: the user has connected again", zap.String("grant", next.ID), zap.String("broker", next.BrokerType))
	}
	seen, err := c.look(ctx, next.UserID)
	if err == nil {
		err = seen.unread
	}
	if err != nil {
		return err
	}
	contested := seen.contested(&next)
	passesOf(ctx).stands(in, next.ID, contested)
	if !contested { // else Resolve tells what comes of it
		c.stored(ctx, &next)
	}
	return nil
}

// place returns the grant whose document a candidate takes over, of those that are
// the candidate's; nil: it gets a document of its own. An id that an earlier release
// made of the broker type as written is kept as long as that is written as it was: it
// can't be derived from any other.
func (in candidate) place(stored []*store.Grant) (before *store.Grant) {
	for _, g := range stored {
		if g.ID == in.grant.ID || before == nil && (g.BrokerType == in.grant.BrokerType || in.byKey(g)) {
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
func (c *Connector) insert(ctx context.Context, in candidate, with store.TokenSealer, replaced []*store.Grant) (*seen, error) {
	revoked, until, err := c.revoked(ctx, in.grant, with.Key.Of(in.tokens.RefreshToken))
	if err != nil {
		return nil, err
	}
	if superseded(in.grant, nil, revoked) {
		passesOf(ctx).pass(in, events.RejectedOlder)
		return nil, nil
	}
	next := *in.grant
	if err := c.prepare(&next, in, with); err != nil {
		return nil, err
	}
	if until.After(c.Settler.Now()) {
		next.Lease = awaiting(until)
	}
	if err := c.Store.Insert(ctx, &next); err != nil {
		return nil, err
	}
	seen, err := c.look(ctx, next.UserID)
	if err == nil {
		err = seen.unread
	}
	if err != nil {
		return nil, err
	}
	overlooked := slices.ContainsFunc(seen.known, func(g *store.Grant) bool {
		return g.ID != next.ID && in.is(g) && !slices.ContainsFunc(replaced, func(r *store.Grant) bool { return r.ID == g.ID })
	})
	if overlooked || superseded(&next, seen.known, revoked) {
		err := c.Store.Delete(ctx, &next)
		if errors.Is(err, store.ErrConflict) {
			err = nil // somebody has sorted it out
		}
		if err == nil && overlooked {
			err = fmt.Errorf("inserting grant %s beside that of an earlier release: %w", next.ID, store.ErrConflict)
		}
		if err == nil {
			passesOf(ctx).pass(in, events.RejectedOlder)
		}
		return nil, err
	}
	contested := seen.contested(&next)
	passesOf(ctx).stands(in, next.ID, contested)
	if !contested { // else resolve tells what comes of it
		c.stored(ctx, &next)
	}
	return seen, nil
}

// prepare makes the grant of a candidate what is to be written and told.
func (c *Connector) prepare(next *store.Grant, in candidate, with store.TokenSealer) error {
	next.State = store.Active
	next.Version++
	with.SealTo(next, in.tokens, next.ConnectedAt, true)
	c.schedule(next, true)
	return c.Settler.Announce(next, events.TokenStored, in.reason)
}

// schedule makes a grant due by its tokens, or at once where only a refresh can name its
// accounts and it brings tokens that were not refreshed yet.
func (c *Connector) schedule(next *store.Grant, fresh bool) {
	due := c.Settler.Policy.Next(next)
	now := store.Milli(c.Settler.Now())
	if fresh && len(next.Accounts) == 0 && next.Refresh != nil {
		due = &store.Due{At: now, Action: store.Refresh}
	}
	c.Settler.Schedule(next, due)
}

// stored records a grant that was written, and announces it.
func (c *Connector) stored(ctx context.Context, g *store.Grant) {
	c.Audit.Add(g.AuditRecord(audit.Sealed, audit.OutcomeConnect, g.AccountIDs()))
	tracing.Log(ctx, c.Log).Info("stored", zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.Int64("version", g.Version))
	c.Dispatcher.Send(ctx, g)
}
