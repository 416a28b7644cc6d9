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

// put stores a candidate, unless what is stored is as new. It may return what it has read
// of the user's grants after that.
func (c *Connector) put(ctx context.Context, in candidate, with store.TokenSealer) (*userGrants, error) {
	// Most connects are new. Look first if an earlier release may have stored the grant
	// under another id, or if only the access token can identify a repetition.
	if in.formerID(in.grant.BrokerType) == in.grant.ID && !in.tokens.RefreshToken.Empty() {
		user, err := c.insert(ctx, in, with, nil)
		if !errors.Is(err, store.ErrConflict) {
			return user, err
		}
	}
	for {
		known, err := c.opts.Store.ByUser(ctx, in.grant.UserID)
		if err != nil {
			return nil, err
		}
		revoked, until, err := c.revocations(ctx, in.grant, with.Key.Of(in.tokens.RefreshToken))
		if err != nil {
			return nil, err
		}
		if superseded(in.grant, known, revoked) {
			outcomeOf(ctx).skip(in, skipReason(in, known))
			return nil, nil
		}
		stored := slices.DeleteFunc(slices.Clone(known), func(g *store.Grant) bool { return !in.matches(g) })
		if slices.ContainsFunc(stored, func(g *store.Grant) bool { return !in.newerThan(g, with.Key) && !in.partOf(g) }) {
			reason := skipReason(in, stored)
			outcomeOf(ctx).skip(in, reason)
			for _, g := range stored {
				if reason == events.RejectedRepeated && g.ConnectedAt.Equal(in.grant.ConnectedAt) {
					outcomeOf(ctx).store(in, g.ID, false)
				}
			}
			return nil, nil
		}
		var after *userGrants
		may := stored
		if in.tokens.RefreshToken.Empty() {
			may = in.sharing(known)
		}
		done, err := c.joinRepeated(ctx, in, may, with)
		before := in.findStored(stored)
		switch {
		case err != nil || done:
		case before == nil:
			if err = c.replaceDelayed(ctx, stored); err == nil {
				after, err = c.insert(ctx, in, with, stored)
			}
		case in.partOf(before):
			in = in.withAlternativeID()
			continue
		default:
			err = c.takeOver(ctx, in, before, with, until)
		}
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
			continue
		}
		return after, err
	}
}

// joinRepeated handles a connect that seems newer than what is stored, but whose refresh
// token (or else access token) a grant of the same accounts has or had: the event was
// published again without its connectedAt, or the institution issues the same token at each
// login. A token that was replaced must not come back. false: it is another token, or the
// grant is no longer refreshed.
func (c *Connector) joinRepeated(ctx context.Context, in candidate, stored []*store.Grant, with store.TokenSealer) (done bool, err error) {
	token := with.Key.Of(in.tokens.RefreshToken)
	for _, g := range stored {
		if g.State == store.Revoked {
			continue
		}
		tokens, err := store.OpenTokens(ctx, c.opts.Envelope, g.Sealed, g.Binding())
		if errors.Is(err, envelope.ErrSealed) {
			continue // a new token set is better than one that never opens
		}
		if err != nil {
			return false, err
		}
		chain := g.ChainFor(with.Key, tokens)
		switch {
		case token == "" && !in.repeats(g, tokens):
		case token == "" && g.State == store.Expired:
			// Without a time from the publisher, the tokens are those that have expired.
			if in.stated || g.Access == nil || g.Access.ExpiresAt == nil || g.Access.Assumed {
				continue
			}
			outcomeOf(ctx).skip(in, events.RejectedRepeated)
			return true, nil
		case token != "" && chain.SpentLink(token) != nil:
			tracing.Log(ctx, c.opts.Log).Warn("a connect was published again after its refresh token was replaced; ignoring it", zap.String("grant", g.ID))
			outcomeOf(ctx).skip(in, events.RejectedRepeated)
			return true, nil
		case token == "", chain.Head() == token && (g.State == store.Active || g.MFA != nil || g.Lease != nil):
			next, changed := c.join(g, &tokens, in.grant, in.tokens, false)
			return true, c.saveJoined(ctx, g, next, tokens, with, changed)
		}
	}
	return false, nil
}

// takeOver replaces a grant by a candidate. The answer to a refresh under way no longer
// counts, unless that presented the candidate's refresh token too. Before until another
// worker may be presenting the token for a grant that is gone.
func (c *Connector) takeOver(ctx context.Context, in candidate, before *store.Grant, with store.TokenSealer, until time.Time) error {
	next := *in.grant
	next.ID = before.ID
	next.Version, next.Rev, next.Epoch, next.Applied, next.Outbox = before.Version, before.Rev, before.Epoch, before.Epoch, before.Outbox
	if len(next.Labels) == 0 {
		next.Labels = before.Labels
	}
	next.Chain = before.Chain
	if next.Chain == nil || next.Chain.Key != with.Key.ID || before.HasLeftovers {
		next.Chain = nil
		tokens, ok, err := c.openTokens(ctx, before)
		switch {
		case ok:
			next.Chain = before.ChainFor(with.Key, tokens)
			next.HasLeftovers, in.tokens.Leftovers = before.HasLeftovers, tokens.Leftovers // not a dead letter yet
		case before.HasLeftovers && err != nil:
			return err
		}
	}
	if next.Chain == nil {
		next.Chain = in.grant.Chain
	}
	if next.Chain.Head() == with.Key.Of(in.tokens.RefreshToken) {
		next.Applied = before.Applied
	}
	if err := c.prepare(&next, in, with, until); err != nil {
		return err
	}
	if err := c.opts.Store.Save(ctx, &next); err != nil {
		return err
	}
	if before.Removal != nil {
		tracing.Log(ctx, c.opts.Log).Info("a removal at Mesh is dropped: the user has connected again", zap.String("grant", next.ID), zap.String("broker", next.BrokerType))
	}
	user, err := c.readBeside(ctx, &next)
	if err != nil {
		return err
	}
	c.keep(ctx, in, &next, user)
	return nil
}

// replaceDelayed revokes the grants with unknown accounts that have only the refresh token
// of a new one. (resolve revokes those with accounts.)
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

// insert stores a candidate as a new grant, and deletes it before any event if it proves to
// be superseded. store.ErrConflict: there is such a grant, perhaps under an id of an
// earlier release, other than those in replaced.
func (c *Connector) insert(ctx context.Context, in candidate, with store.TokenSealer, replaced []*store.Grant) (*userGrants, error) {
	revoked, until, err := c.revocations(ctx, in.grant, with.Key.Of(in.tokens.RefreshToken))
	if err != nil {
		return nil, err
	}
	if superseded(in.grant, nil, revoked) {
		outcomeOf(ctx).skip(in, events.RejectedOlder)
		return nil, nil
	}
	next := *in.grant
	if err := c.prepare(&next, in, with, until); err != nil {
		return nil, err
	}
	if err := c.opts.Store.Insert(ctx, &next); err != nil {
		return nil, err
	}
	user, err := c.readBeside(ctx, &next)
	if err != nil {
		return nil, err
	}
	overlooked := slices.ContainsFunc(user.known, func(g *store.Grant) bool {
		return g.ID != next.ID && in.matches(g) && !slices.ContainsFunc(replaced, func(r *store.Grant) bool { return r.ID == g.ID })
	})
	if overlooked || superseded(&next, user.known, revoked) {
		switch err := c.opts.Store.Delete(ctx, &next); {
		case err != nil && !errors.Is(err, store.ErrConflict): // or else another worker has resolved it
			return nil, err
		case overlooked:
			return nil, fmt.Errorf("inserting grant %s beside that of an earlier release: %w", next.ID, store.ErrConflict)
		}
		outcomeOf(ctx).skip(in, events.RejectedOlder)
		return nil, nil
	}
	c.keep(ctx, in, &next, user)
	return user, nil
}

// keep announces the grant of a candidate, unless another has its refresh token: resolve
// decides what becomes of it then.
func (c *Connector) keep(ctx context.Context, in candidate, g *store.Grant, user *userGrants) {
	inConflict := user.inConflict(g)
	outcomeOf(ctx).store(in, g.ID, inConflict)
	if !inConflict {
		c.announce(ctx, g)
	}
}

// prepare prepares the grant of a candidate for saving: it seals the tokens, and adds the
// schedule, the event and, until a time, the lease of a grant that awaits an answer.
func (c *Connector) prepare(next *store.Grant, in candidate, with store.TokenSealer, until time.Time) error {
	next.State = store.Active
	next.Version++
	with.SealTo(next, in.tokens, next.ConnectedAt, true)
	if until.After(c.opts.Settler.Now()) {
		next.Lease = awaiting(until)
	}
	c.schedule(next, true)
	return c.opts.Settler.Announce(next, events.TokenStored, in.reason)
}

// schedule makes a grant due by its tokens, or at once if a refresh has to name its
// accounts and its tokens are fresh.
func (c *Connector) schedule(next *store.Grant, fresh bool) {
	due := c.opts.Settler.Policy.Next(next)
	now := store.Milli(c.opts.Settler.Now())
	if fresh && len(next.Accounts) == 0 && next.Refresh != nil {
		due = &store.Due{At: now, Action: store.Refresh}
	}
	c.opts.Settler.Schedule(next, due)
}

// announce records a grant that was written, and announces it.
func (c *Connector) announce(ctx context.Context, g *store.Grant) {
	c.opts.Audit.Add(g.AuditRecord(audit.Sealed, audit.OutcomeConnect, g.AccountIDs()))
	tracing.Log(ctx, c.opts.Log).Info("stored", zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.Int64("version", g.Version))
	c.opts.Dispatcher.Send(ctx, g)
}
