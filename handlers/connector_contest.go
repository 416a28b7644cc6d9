package handlers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// Two grants with one refresh token end each other: the first to present it has it
// replaced. A worker that sees two such grants leaves one of them, and any other worker
// the same one. It writes the grant that stays first, so that no other worker can remove
// that, and removes the other only as it was read.

// userGrants is what the database has about a user: the user's grants, and those of all users
// that have, or had, a refresh token of these.
type userGrants struct {
	known, related []*store.Grant
	// unread says why some of them have no chain; nil: all have.
	unread error
}

// readUser reads what the database has about a user. It does not wait for KMS, without which a
// grant that an earlier release wrote has no chain. written are grants of the user that the
// caller has just written.
func (c *Connector) readUser(ctx context.Context, userID string, written ...*store.Grant) (*userGrants, error) {
	known, err := c.opts.Store.ByUserWith(ctx, userID, written...)
	if err != nil {
		return nil, err
	}
	var fingerprints []string
	var unread error
	for i, g := range known {
		if g.State == store.Revoked {
			continue
		}
		switch with, err := c.withChain(ctx, g); {
		case errors.Is(err, envelope.ErrKMS):
			unread = err
		case err != nil:
			return nil, err
		default:
			known[i] = with
		}
		fingerprints = append(fingerprints, known[i].Chain.Fingerprints()...)
	}
	related, err := c.opts.Store.ByFingerprints(ctx, fingerprints, known...)
	if err != nil {
		return nil, err
	}
	for _, g := range known { // an earlier release wrote it without a chain
		if !slices.ContainsFunc(related, func(o *store.Grant) bool { return o.ID == g.ID }) {
			related = append(related, g)
		}
	}
	return &userGrants{known, related, unread}, nil
}

// readBeside reads what the database has beside a grant that was just written, with all
// chains. The grant itself is a copy, since the one that was written is announced meanwhile.
func (c *Connector) readBeside(ctx context.Context, g *store.Grant) (*userGrants, error) {
	user, err := c.readUser(ctx, g.UserID, g.Clone())
	if err == nil {
		err = user.unread
	}
	return user, err
}

// withChain returns a grant with its chain, even if an earlier release wrote it.
func (c *Connector) withChain(ctx context.Context, g *store.Grant) (*store.Grant, error) {
	if g.Chain != nil || g.Refresh == nil {
		return g, nil
	}
	key, err := c.opts.Fingerprints.Key(ctx)
	if err != nil {
		return nil, err
	}
	tokens, ok, err := c.openTokens(ctx, g)
	if err != nil || !ok {
		return g, err
	}
	with := g.Clone()
	with.Chain = g.ChainFor(key, tokens)
	return with, nil
}

// inConflict reports whether another grant has a grant's refresh token.
func (u *userGrants) inConflict(g *store.Grant) bool {
	return slices.ContainsFunc(u.related, func(o *store.Grant) bool { return inConflict(g, o) })
}

// inConflict reports whether two grants can't both stay.
func inConflict(a, b *store.Grant) bool {
	if a.ID == b.ID || a.State == store.Revoked || b.State == store.Revoked || a.Chain == nil || b.Chain == nil || a.Chain.Key != b.Chain.Key {
		return false
	}
	if a.Chain.Head() != "" && a.Chain.Head() == b.Chain.Head() {
		// A grant that is no longer refreshed may stay beside an older one.
		return sameOwner(a, b) || a.State == store.Active && b.State == store.Active || a.State == store.Active && later(a, b) || b.State == store.Active && later(b, a)
	}
	return hasSpentToken(a, b) || hasSpentToken(b, a)
}

// hasSpentToken reports whether a grant has a refresh token that another has replaced. For another
// user only a refresh counts: after a new login the old one may still be valid.
func hasSpentToken(a, b *store.Grant) bool {
	link := b.Chain.SpentLink(a.Chain.Head())
	return link != nil && (link.Rotated || sameOwner(a, b))
}

func sameOwner(a, b *store.Grant) bool {
	return a.UserID == b.UserID && events.SameBroker(a.BrokerType, b.BrokerType)
}

// resolveConflict leaves one of two grants with one refresh token, of which one is the user's.
// false: there are no two. The error is a *store.LeasedError if that has to wait for a
// refresh.
func (c *Connector) resolveConflict(ctx context.Context, user *userGrants) (changed bool, err error) {
	for _, g := range user.known {
		for _, o := range user.related {
			if !inConflict(g, o) {
				continue
			}
			if sameOwner(g, o) {
				return true, c.merge(ctx, g, o, user.known)
			}
			return true, c.move(ctx, g, o)
		}
		if g.Lease != nil && g.Lease.Owner == handOver && g.State != store.Revoked {
			return true, c.release(ctx, g) // another worker was cut off before it could
		}
	}
	return false, nil
}

// busy returns a *store.LeasedError if a grant is being refreshed. After a lease ran out
// the outcome is unknown, since the answer may be in the recovery stream, until another
// worker takes the lease over or applies the answer.
func (c *Connector) busy(g *store.Grant) error {
	if g.Lease == nil || handingOver(g) {
		return nil
	}
	now := c.opts.Settler.Now()
	if !now.Before(g.Lease.Until.Add(recoverFor)) && (g.State != store.Active || g.Due == nil) {
		return nil // nobody takes it over
	}
	until := g.Lease.Until
	if !until.After(now) {
		until = now.Add(recoverFor)
	}
	return fmt.Errorf("grant %s is being refreshed: %w", g.ID, &store.LeasedError{Until: until})
}

// recoverFor is how long to wait at a time for the outcome after a lease ran out.
const recoverFor = 30 * time.Second

// merge makes one of two grants of a user with one refresh token: the one that is ahead in the
// chain, or being refreshed, gets the accounts of the other.
func (c *Connector) merge(ctx context.Context, a, b *store.Grant, known []*store.Grant) error {
	keep, lose := a, b
	if prefers(b, a) {
		keep, lose = b, a
	}
	if err := c.busy(lose); err != nil {
		return err
	}
	tokens, ok, err := c.openTokens(ctx, keep)
	if err != nil {
		return err
	}
	brought, others, err := c.openTokens(ctx, lose)
	if err != nil {
		return err
	}
	if !ok && others && c.busy(keep) == nil {
		keep, lose, tokens, brought = lose, keep, brought, tokens
	}
	with, err := c.opts.Fingerprints.Sealer(ctx, keep.UserID)
	if err != nil {
		return err
	}
	spent := hasSpentToken(lose, keep)
	in := lose.Clone()
	if spent {
		// An old connect may have been published again: accounts that are in another grant by now stay there.
		in.Accounts = slices.DeleteFunc(in.Accounts, func(account store.Account) bool {
			return slices.ContainsFunc(known, func(g *store.Grant) bool {
				return g.ID != keep.ID && g.ID != lose.ID && g.State == store.Active && events.SameBroker(g.BrokerType, keep.BrokerType) && g.Account(account.ID) != nil
			})
		})
	}
	next, changed := keep.Clone(), false
	if ok || others {
		next, changed = c.join(keep, &tokens, in, brought, spent)
	}
	next.Chain = keep.Chain.WithOwnersOf(lose.Chain)
	if len(brought.Leftovers) > 0 { // not a dead letter yet
		tokens.Leftovers = slices.Concat(tokens.Leftovers, brought.Leftovers)
		next.HasLeftovers, changed = true, true
	}
	if err := c.prepareJoined(keep, next, tokens, with, changed); err != nil {
		return err
	}
	next.Chain = next.Chain.WithSpentOf(lose.Chain)
	if err := c.opts.Store.Save(ctx, next); err != nil {
		return err
	}
	lose = lose.Clone()
	lose.HasLeftovers = false // keep has it now
	if err := c.remove(ctx, lose, events.ReasonReplaced); err != nil {
		return err
	}
	if spent && !changed {
		outcomeOf(ctx).end(lose)
	}
	c.announce(ctx, next)
	return nil
}

// prefers reports whether the first of two grants of a user with one refresh token stays.
func prefers(a, b *store.Grant) bool {
	switch {
	case hasSpentToken(a, b) != hasSpentToken(b, a):
		return hasSpentToken(b, a)
	case (a.State == store.Active) != (b.State == store.Active):
		return a.State == store.Active
	case (a.Lease == nil) != (b.Lease == nil):
		return a.Lease != nil
	case unannounced(a) != unannounced(b):
		return unannounced(b)
	}
	return newer(a, b)
}

// unannounced reports whether a connect has just stored a grant, perhaps without any event
// about it yet.
func unannounced(g *store.Grant) bool { return g.Version == 1 && g.Epoch == 0 && g.Outbox != nil }

// remove ends a grant, with an event unless the connect at work has just written it beside
// another. Subscribers may know of any other grant, even if its outbox is not cleared.
func (c *Connector) remove(ctx context.Context, g *store.Grant, reason events.Reason) error {
	if unannounced(g) && outcomeOf(ctx).unannounced[g.ID] {
		return c.opts.Store.Delete(ctx, g)
	}
	return c.revoke(ctx, g, reason)
}

// openTokens opens a grant's tokens. false: they do not open unless a key is restored.
func (c *Connector) openTokens(ctx context.Context, g *store.Grant) (tokens store.TokenSet, ok bool, err error) {
	tokens, err = store.OpenTokens(ctx, c.opts.Envelope, g.Sealed, g.Binding())
	if errors.Is(err, envelope.ErrSealed) || errors.Is(err, envelope.ErrUnknownKey) || errors.Is(err, envelope.ErrWrappedKey) {
		return store.TokenSet{}, false, nil
	}
	return tokens, err == nil, err
}
