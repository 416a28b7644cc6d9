package handlers

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
)

// handOver owns the lease under which a grant gets a refresh token from another: nobody
// presents it until the other is gone. awaits owns the lease of a grant that waits for the
// answer to a refresh of another, which may be gone already. Both last handOverFor longer
// than the wait.
const (
	handOver       = "hand-over"
	awaitingAnswer = "hand-over, awaiting an answer"
	handOverFor    = 5 * time.Minute
)

// handingOver reports whether a grant has a lease of handOver or awaits, so that nobody
// refreshes it.
func handingOver(g *store.Grant) bool {
	return g.Lease != nil && (g.Lease.Owner == handOver || g.Lease.Owner == awaitingAnswer)
}

// awaiting returns the lease of a grant whose refresh token another worker may present
// until a time.
func awaiting(until time.Time) *store.Lease {
	return &store.Lease{Owner: awaitingAnswer, Until: store.Milli(until)}
}

// answerUntil returns until when to wait for the answer to a refresh that is under way.
func answerUntil(g *store.Grant, now time.Time) time.Time {
	if g.Lease != nil && g.Lease.Until.After(now) {
		now = g.Lease.Until
	}
	return now.Add(handOverFor)
}

// release ends the lease of a grant whose refresh token no other has any more.
func (c *Connector) release(ctx context.Context, g *store.Grant) error {
	next := g.Clone()
	next.Lease = nil
	if err := c.opts.Store.Save(ctx, next); err != nil {
		return err
	}
	c.announce(ctx, next)
	return nil
}

// move gives a refresh token that two users connected with to the last of them. If a
// refresh replaced it and that user had it before the other, an old connect was published
// again, and the token stays where it is.
func (c *Connector) move(ctx context.Context, a, b *store.Grant) error {
	to, from := a, b
	if later(b, a) {
		to, from = b, a
	}
	if link := from.Chain.SpentLink(to.Chain.Head()); hasSpentToken(to, from) && (link.Abandoned || slices.Contains(link.Owners, store.Owner(to.UserID, to.BrokerType))) {
		if err := c.busy(to); err != nil {
			return err
		}
		tracing.Log(ctx, c.opts.Log).Warn("a connect was published again after its refresh token was replaced; ignoring it", zap.String("grant", from.ID))
		if err := c.opts.Store.Save(ctx, from); err != nil { // so that it stays
			return err
		}
		if err := c.remove(ctx, to, events.ReasonMoved); err != nil {
			return err
		}
		outcomeOf(ctx).end(to)
		return nil
	}
	waits := c.busy(from)
	next, err := c.successor(ctx, to, from, waits != nil)
	if err != nil {
		return err
	}
	if to.Lease == nil || handingOver(to) {
		next.Lease = awaiting(answerUntil(from, c.opts.Settler.Now()))
		if waits == nil {
			next.Lease.Owner = handOver
		}
	}
	if err := c.opts.Store.Save(ctx, next); err != nil {
		return err
	}
	if waits != nil {
		return waits
	}
	if err := c.remove(ctx, from, events.ReasonMoved); err != nil {
		return err
	}
	outcomeOf(ctx).end(from)
	if handingOver(next) {
		return c.release(ctx, next)
	}
	c.announce(ctx, next)
	return nil
}

// later orders grants of two users with one refresh token: by connect; at the same time the
// one that got the token from the other, whose connect is an old one if it comes again; or
// else by publication. The two documents say all of that, so that all workers agree.
func later(a, b *store.Grant) bool {
	if after, before := namesOwner(a, b), namesOwner(b, a); after != before && a.ConnectedAt.Equal(b.ConnectedAt) {
		return after
	}
	return newer(a, b)
}

// namesOwner reports whether a grant's chain says that the owner of another grant connected
// with a refresh token of both.
func namesOwner(g, other *store.Grant) bool {
	return g.Chain != nil && slices.ContainsFunc(g.Chain.Links, func(l store.Link) bool {
		return other.Chain.Has(l.Token) && slices.Contains(l.Owners, store.Owner(other.UserID, other.BrokerType))
	})
}

// successor returns the grant of the user who connected last as it is to be saved: with the
// newest refresh token of the other, unless that is being refreshed.
func (c *Connector) successor(ctx context.Context, to, from *store.Grant, underWay bool) (*store.Grant, error) {
	next := to.Clone()
	next.Chain = to.Chain.WithOwnersOf(from.Chain)
	if underWay {
		return next, nil
	}
	if !hasSpentToken(to, from) {
		next.Chain = next.Chain.WithSpentOf(from.Chain)
		return next, nil
	}
	if err := c.busy(to); err != nil {
		return nil, err
	}
	with, err := c.opts.Fingerprints.Sealer(ctx, to.UserID)
	if err != nil {
		return nil, err
	}
	tokens, _, err := c.openTokens(ctx, to)
	if err != nil {
		return nil, err
	}
	newest, ok, err := c.openTokens(ctx, from)
	if err != nil || !ok {
		return next, err
	}
	tokens.RefreshToken = newest.RefreshToken
	tokens.Accounts = slices.Clone(tokens.Accounts)
	for i := range tokens.Accounts {
		id := tokens.Accounts[i].AccountID
		its, own, others := newest.Account(id), next.Account(id), from.Account(id)
		if its != nil && own != nil && others != nil {
			tokens.Accounts[i], own.ExpiresAt, next.Access = *its, others.ExpiresAt, from.Access
		}
	}
	if unannounced(to) {
		next.Outbox = nil // of a version that nobody knows
	}
	next.Refresh, next.Unknown = from.Clone().Refresh, from.Unknown
	next.State, next.Reason, next.PurgeAt = store.Active, "", nil
	next.Attempts, next.Deferrals, next.Warned = 0, 0, ""
	next.Version++
	with.SealTo(next, tokens, c.opts.Settler.Now(), false)
	next.Chain = next.Chain.WithSpentOf(from.Chain)
	c.schedule(next, false)
	return next, c.opts.Settler.Announce(next, events.TokenStored, "")
}
