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
	"github.com/latchkey/latchkey/store/envelope"
)

// Two grants that hold one refresh token end each other: the first that presents
// it has it replaced. Whoever sees two such grants makes one of them, and of two
// workers that see them at once the outcome is the same. The grant that stays is
// written first, so that it can't go at the same time by another's hand; the one
// that goes is removed only as it was read.

// seen is what a look into the database has shown: a user's grants, and those of
// all users that hold, or held, a refresh token of theirs.
type seen struct {
	known, holders []*store.Grant
	// unread is why not all of them have their chain; nil: they have.
	unread error
}

// look reads what there is about a user. It does not wait for KMS: while that is away, a
// grant that an earlier release wrote has no chain, and whoever needs it looks at unread.
func (c *Connector) look(ctx context.Context, userID string) (*seen, error) {
	known, err := c.Store.ByUser(ctx, userID)
	if err != nil {
		return nil, err
	}
	var fingerprints []string
	var unread error
	for i, g := range known {
		if g.State == store.Revoked {
			continue
		}
		switch with, err := c.chained(ctx, g); {
		case errors.Is(err, envelope.ErrKMS):
			unread = err
		case err != nil:
			return nil, err
		default:
			known[i] = with
		}
		fingerprints = append(fingerprints, known[i].Chain.Fingerprints()...)
	}
	holders, err := c.Store.Holders(ctx, fingerprints)
	if err != nil {
		return nil, err
	}
	for _, g := range known { // an earlier release wrote some without a chain
		if !slices.ContainsFunc(holders, func(o *store.Grant) bool { return o.ID == g.ID }) {
			holders = append(holders, g)
		}
	}
	return &seen{known, holders, unread}, nil
}

// chained returns a grant with its chain, which an earlier release did not write.
func (c *Connector) chained(ctx context.Context, g *store.Grant) (*store.Grant, error) {
	if g.Chain != nil || g.Refresh == nil {
		return g, nil
	}
	key, err := c.Fingerprints.Key(ctx)
	if err != nil {
		return nil, err
	}
	tokens, ok, err := c.opened(ctx, g)
	if err != nil || !ok {
		return g, err
	}
	with := g.Clone()
	with.Chain = g.ChainFor(key, tokens)
	return with, nil
}

// contested reports whether another grant holds a grant's refresh token.
func (s *seen) contested(g *store.Grant) bool {
	return slices.ContainsFunc(s.holders, func(o *store.Grant) bool { return contend(g, o) })
}

// contend reports whether two grants can't both go on.
func contend(a, b *store.Grant) bool {
	if a.ID == b.ID || a.State == store.Revoked || b.State == store.Revoked || a.Chain == nil || b.Chain == nil || a.Chain.Key != b.Chain.Key {
		return false
	}
	if a.Chain.Head() != "" && a.Chain.Head() == b.Chain.Head() {
		// A grant that is refreshed no more is in nobody's way, but for a newer one.
		return sameOwner(a, b) || a.State == store.Active && b.State == store.Active || a.State == store.Active && later(a, b) || b.State == store.Active && later(b, a)
	}
	return behind(a, b) || behind(b, a)
}

// behind reports whether a grant holds a refresh token that another has replaced.
// For another user that counts only if a refresh did: after a new login the old one may live on.
func behind(a, b *store.Grant) bool {
	link := b.Chain.Spent(a.Chain.Head())
	return link != nil && (link.Rotated || sameOwner(a, b))
}

func sameOwner(a, b *store.Grant) bool {
	return a.UserID == b.UserID && events.SameBroker(a.BrokerType, b.BrokerType)
}

// contest makes one of two grants that hold one refresh token, one of which is a
// user's. false: there are no such two. The error is a *store.LeasedError where that
// has to wait for the end of a refresh.
func (c *Connector) contest(ctx context.Context, seen *seen) (changed bool, err error) {
	for _, g := range seen.known {
		for _, o := range seen.holders {
			if !contend(g, o) {
				continue
			}
			if sameOwner(g, o) {
				return true, c.unite(ctx, g, o, seen.known)
			}
			return true, c.move(ctx, g, o)
		}
		if g.Lease != nil && g.Lease.Owner == handOver && g.State != store.Revoked {
			return true, c.release(ctx, g) // whoever was to do that was cut off
		}
	}
	return false, nil
}

// release ends the lease of a grant whose refresh token no other holds any more.
func (c *Connector) release(ctx context.Context, g *store.Grant) error {
	next := g.Clone()
	next.Lease = nil
	if err := c.Store.Save(ctx, next); err != nil {
		return err
	}
	c.stored(ctx, next)
	return nil
}

// busy returns an error where a grant is being refreshed. A lease that ran out says
// that the outcome is not known: the answer may be in the recovery stream. Whoever
// takes the lease over, or applies the answer, ends it.
func (c *Connector) busy(g *store.Grant) error {
	if g.Lease == nil || hands(g) {
		return nil
	}
	now := c.Settler.Now()
	if !now.Before(g.Lease.Until.Add(recoverFor)) && (g.State != store.Active || g.Due == nil) {
		return nil // nobody takes it over
	}
	until := g.Lease.Until
	if !until.After(now) {
		until = now.Add(recoverFor)
	}
	return fmt.Errorf("grant %s is being refreshed: %w", g.ID, &store.LeasedError{Until: until})
}

// recoverFor is how long the end of a lease that ran out is waited for at a time.
const recoverFor = 30 * time.Second

// unite makes one grant of two of a user's that hold one refresh token: that
// which is ahead in the chain, or being refreshed, gets the accounts of the other.
func (c *Connector) unite(ctx context.Context, a, b *store.Grant, known []*store.Grant) error {
	keep, lose := a, b
	if prefers(b, a) {
		keep, lose = b, a
	}
	if err := c.busy(lose); err != nil {
		return err
	}
	tokens, ok, err := c.opened(ctx, keep)
	if err != nil {
		return err
	}
	brought, others, err := c.opened(ctx, lose)
	if err != nil {
		return err
	}
	if !ok && others && c.busy(keep) == nil {
		keep, lose, tokens, brought = lose, keep, brought, tokens
	}
	with, err := c.Fingerprints.Sealer(ctx, keep.UserID)
	if err != nil {
		return err
	}
	spent := behind(lose, keep)
	in := lose.Clone()
	if spent {
		// Such a connect may be an old one, published again: what was given elsewhere since stays there.
		in.Accounts = slices.DeleteFunc(in.Accounts, func(account store.Account) bool {
			return slices.ContainsFunc(known, func(g *store.Grant) bool {
				return g.ID != keep.ID && g.ID != lose.ID && g.State == store.Active && events.SameBroker(g.BrokerType, keep.BrokerType) && g.Account(account.ID) != nil
			})
		})
	}
	next, told := keep.Clone(), false
	if ok || others {
		next, told = c.joined(keep, &tokens, in, brought, spent)
	}
	next.Chain = keep.Chain.Sharing(lose.Chain)
	if len(brought.Left) > 0 { // on its way to the dead letters
		tokens.Left = slices.Concat(tokens.Left, brought.Left)
		next.Left, told = true, true
	}
	if err := c.prepareJoined(keep, next, tokens, with, told); err != nil {
		return err
	}
	next.Chain = next.Chain.Remembering(lose.Chain)
	if err := c.Store.Save(ctx, next); err != nil {
		return err
	}
	lose = lose.Clone()
	lose.Left = false // the other has it now
	if err := c.remove(ctx, lose, events.ReasonReplaced); err != nil {
		return err
	}
	if spent && !told {
		passesOf(ctx).lose(lose)
	}
	c.stored(ctx, next)
	return nil
}

// prefers reports whether of two grants of a user that hold one refresh token the
// first stays.
func prefers(a, b *store.Grant) bool {
	switch {
	case behind(a, b) != behind(b, a):
		return behind(b, a)
	case (a.State == store.Active) != (b.State == store.Active):
		return a.State == store.Active
	case (a.Lease == nil) != (b.Lease == nil):
		return a.Lease != nil
	case untold(a) != untold(b):
		return untold(b)
	}
	return newer(a, b)
}

// untold reports whether a grant was just stored by a connect, and nobody may have been
// told of it.
func untold(g *store.Grant) bool { return g.Version == 1 && g.Epoch == 0 && g.Outbox != nil }

// remove ends a grant. Nobody hears of one that the connect at work has just written
// beside another. Of all others subscribers may have heard, though the outbox is not
// cleared yet.
func (c *Connector) remove(ctx context.Context, g *store.Grant, reason events.Reason) error {
	if untold(g) && passesOf(ctx).unsent[g.ID] {
		return c.Store.Delete(ctx, g)
	}
	return c.revoke(ctx, g, reason)
}

// opened opens a grant's tokens. false: they don't open any more, unless somebody
// restores a key.
func (c *Connector) opened(ctx context.Context, g *store.Grant) (tokens store.TokenSet, ok bool, err error) {
	tokens, err = store.OpenTokens(ctx, c.Envelope, g.Sealed, g.Binding())
	if errors.Is(err, envelope.ErrSealed) || errors.Is(err, envelope.ErrUnknownKey) || errors.Is(err, envelope.ErrWrappedKey) {
		return store.TokenSet{}, false, nil
	}
	return tokens, err == nil, err
}

// handOver is the owner of the lease under which a grant gets a refresh token that
// another still holds: nobody presents it until the other is gone. With awaits the owner
// of one says that it awaits the answer to a refresh of another, which may be gone
// already. handOverFor is how long both last past what is waited for.
const (
	handOver    = "hand-over"
	awaits      = "hand-over, awaiting an answer"
	handOverFor = 5 * time.Minute
)

// move gives a refresh token that two users connected with to the one who did so
// last. Where a refresh replaced it, and that user had it before the other, the connect
// was an old one, published again, and the token stays where it is.
func (c *Connector) move(ctx context.Context, a, b *store.Grant) error {
	to, from := a, b
	if later(b, a) {
		to, from = b, a
	}
	if link := from.Chain.Spent(to.Chain.Head()); behind(to, from) && (link.Abandoned || slices.Contains(link.By, store.Owner(to.UserID, to.BrokerType))) {
		if err := c.busy(to); err != nil {
			return err
		}
		tracing.Log(ctx, c.Log).Warn("a connect was published again after its refresh token was replaced, and is passed over", zap.String("grant", from.ID))
		if err := c.Store.Save(ctx, from); err != nil { // so that it stays
			return err
		}
		if err := c.remove(ctx, to, events.ReasonMoved); err != nil {
			return err
		}
		passesOf(ctx).lose(to)
		return nil
	}
	waits := c.busy(from)
	next, err := c.heir(ctx, to, from, waits != nil)
	if err != nil {
		return err
	}
	if to.Lease == nil || hands(to) {
		next.Lease = awaiting(answerUntil(from, c.Settler.Now()))
		if waits == nil {
			next.Lease.Owner = handOver
		}
	}
	if err := c.Store.Save(ctx, next); err != nil {
		return err
	}
	if waits != nil {
		return waits
	}
	if err := c.remove(ctx, from, events.ReasonMoved); err != nil {
		return err
	}
	passesOf(ctx).lose(from)
	if hands(next) {
		return c.release(ctx, next)
	}
	c.stored(ctx, next)
	return nil
}

// later orders grants of two users that hold one refresh token, by the time they were
// connected. Of the same time the one is later that has the token from the other: the
// other's connect is an old one if it comes again. Else the one is that was published
// later. All of that is in the two documents, so that every worker finds the same.
func later(a, b *store.Grant) bool {
	if after, before := knows(a, b), knows(b, a); after != before && a.ConnectedAt.Equal(b.ConnectedAt) {
		return after
	}
	return newer(a, b)
}

// knows reports whether a grant's chain tells that the owner of another grant connected
// with a refresh token of both.
func knows(g, other *store.Grant) bool {
	return g.Chain != nil && slices.ContainsFunc(g.Chain.Links, func(l store.Link) bool {
		return other.Chain.Has(l.Token) && slices.Contains(l.By, store.Owner(other.UserID, other.BrokerType))
	})
}

// awaiting is the lease of a grant whose refresh token somebody else may be presenting
// until a time.
func awaiting(until time.Time) *store.Lease {
	return &store.Lease{Owner: awaits, Until: store.Milli(until)}
}

// answerUntil is until when the answer to a refresh that is under way is waited for, and
// then some.
func answerUntil(g *store.Grant, now time.Time) time.Time {
	if g.Lease != nil && g.Lease.Until.After(now) {
		now = g.Lease.Until
	}
	return now.Add(handOverFor)
}

// hands reports whether a grant has such a lease, under which nobody refreshes it.
func hands(g *store.Grant) bool {
	return g.Lease != nil && (g.Lease.Owner == handOver || g.Lease.Owner == awaits)
}

// heir returns the grant of the user who connected last as it is to be: with what
// the other's refreshes have made of the refresh token, unless one is under way.
func (c *Connector) heir(ctx context.Context, to, from *store.Grant, underWay bool) (*store.Grant, error) {
	next := to.Clone()
	next.Chain = to.Chain.Sharing(from.Chain)
	if underWay {
		return next, nil
	}
	if !behind(to, from) {
		next.Chain = next.Chain.Remembering(from.Chain)
		return next, nil
	}
	if err := c.busy(to); err != nil {
		return nil, err
	}
	with, err := c.Fingerprints.Sealer(ctx, to.UserID)
	if err != nil {
		return nil, err
	}
	tokens, _, err := c.opened(ctx, to)
	if err != nil {
		return nil, err
	}
	newest, ok, err := c.opened(ctx, from)
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
	if untold(to) {
		next.Outbox = nil // of the version that nobody was told of
	}
	next.Refresh, next.Unknown = from.Clone().Refresh, from.Unknown
	next.State, next.Reason, next.PurgeAt = store.Active, "", nil
	next.Attempts, next.Deferrals, next.Warned = 0, 0, ""
	next.Version++
	with.SealTo(next, tokens, c.Settler.Now(), false)
	next.Chain = next.Chain.Remembering(from.Chain)
	c.schedule(next, false)
	return next, c.Settler.Announce(next, events.TokenStored, "")
}
