package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
)

// Resolve leaves each refresh token in one grant, and takes from each grant of a user the
// accounts that it has lost. It may run at any time, on any worker. The error is a
// *store.LeasedError if something has to wait for a refresh; all else is done then.
func (c *Connector) Resolve(ctx context.Context, userID string) error {
	user, err := c.readUser(ctx, userID)
	if err != nil {
		return err
	}
	return c.resolve(ctx, userID, user)
}

func (c *Connector) resolve(ctx context.Context, userID string, user *userGrants) error {
	changed, err := false, user.unread
	if err == nil {
		changed, err = c.splitAll(ctx, user.known)
	}
	if err == nil && !changed {
		changed, err = c.resolveConflict(ctx, user)
	}
	erasing := errors.Is(err, envelope.ErrKMS) // only erasures do not wait for KMS
	switch {
	case changed && err == nil, errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotFound):
		return c.Resolve(ctx, userID)
	case erasing:
		err = &unresolvedError{err}
	case err != nil && !errors.As(err, new(*store.LeasedError)):
		return err
	}
	unresolved := err
	for _, g := range user.known {
		if g.State == store.Revoked {
			continue
		}
		head := g.Chain.Head()
		if handingOver(g) && g.Lease.Valid(c.opts.Settler.Now()) {
			head = "" // only the answer that it waits for can say whether it is spent
		}
		revoked, until, err := c.revocations(ctx, g, head)
		if err != nil {
			return err
		}
		gone := lostAccounts(g, user.known, revoked)
		switch {
		case len(gone) == 0 && g.Lease == nil && until.After(c.opts.Settler.Now()):
			next := g.Clone()
			next.Lease = awaiting(until)
			err = c.opts.Store.Save(ctx, next)
		case len(gone) == 0, erasing && reasonFor(g, revoked) != events.ReasonDisconnected:
			continue
		case len(gone) == max(len(g.Accounts), 1):
			err = c.end(ctx, g, revoked, user)
		default:
			err = c.trim(ctx, g, gone, reasonFor(g, revoked))
		}
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
			return c.Resolve(ctx, userID)
		}
		if errors.Is(err, envelope.ErrKMS) {
			erasing, unresolved = true, err // erasures need no KMS
			continue
		}
		if err != nil {
			return err
		}
	}
	return unresolved
}

// end erases a grant that has lost all its accounts, once it is recorded which refresh
// tokens are spent.
func (c *Connector) end(ctx context.Context, g *store.Grant, revoked map[string]time.Time, user *userGrants) error {
	reason := reasonFor(g, revoked)
	if reason == events.ReasonReplaced {
		if err := c.recordSpentIn(ctx, g, user.known); err != nil {
			return err
		}
	} else {
		last := slices.MaxFunc(slices.Collect(maps.Values(revoked)), time.Time.Compare)
		if err := c.opts.Store.RecordRevocation(ctx, store.Scope{User: g.UserID, Broker: g.BrokerType, Account: unknownAccountsKey(g)}, last, c.opts.Settler.Now().Add(c.opts.Remember)); err != nil {
			return err
		}
		if err := c.recordSpent(ctx, g, user); err != nil {
			return err
		}
	}
	if err := c.revoke(ctx, g, reason); err != nil {
		return err
	}
	outcomeOf(ctx).end(g)
	return nil
}

// unresolvedError says why it is unknown which grants share a refresh token. What was
// disconnected is erased all the same.
type unresolvedError struct{ error }

func (e *unresolvedError) Unwrap() error { return e.error }

// spentToken is a key among disconnected accounts: the refresh token was replaced in a
// grant that is gone. No account has such an id.
const spentToken = "\x00"

// revocations returns when the accounts of a grant were last disconnected, and spentToken if
// the refresh token with this fingerprint is spent. Before until nobody may present that,
// since another worker may be presenting it.
func (c *Connector) revocations(ctx context.Context, g *store.Grant, token string) (revoked map[string]time.Time, until time.Time, err error) {
	ids := g.AccountIDs()
	if len(ids) == 0 {
		ids = []string{unknownAccountsKey(g)}
	}
	revoked, fate, err := c.opts.Store.RevocationsAndTokenRecord(ctx, g.UserID, g.BrokerType, ids, token)
	if err == nil && fate.Spent {
		revoked[spentToken] = time.Time{} // before any connect
	}
	return revoked, fate.Until, err
}

// unknownAccountsKey is the key of a grant with unknown accounts among disconnected accounts. No
// account has such an id.
func unknownAccountsKey(g *store.Grant) string { return "\x00" + g.ID }

// superseded reports whether every account of a grant was disconnected since it was
// connected, or is in a newer grant.
func superseded(g *store.Grant, known []*store.Grant, revoked map[string]time.Time) bool {
	return len(lostAccounts(g, known, revoked)) == max(len(g.Accounts), 1)
}

// lostAccounts returns the accounts that a grant has lost, and "" for a lost grant whose accounts
// are unknown. With a spent refresh token all are lost: the user has disconnected the grant
// that replaced it.
func lostAccounts(g *store.Grant, known []*store.Grant, revoked map[string]time.Time) []string {
	disconnected := func(id string) bool {
		at, ok := revoked[id]
		return ok && !g.ConnectedSince(id).After(at)
	}
	_, spent := revoked[spentToken]
	if len(g.Accounts) == 0 {
		if spent || disconnected("") || disconnected(unknownAccountsKey(g)) {
			return []string{""}
		}
		return nil
	}
	return slices.DeleteFunc(g.AccountIDs(), func(id string) bool { return !spent && !disconnected(id) && !g.InNewer(id, known) })
}

// byConnect compares grants by when they were connected, then by when that was published.
func byConnect(a, b *store.Grant) int {
	return cmp.Or(a.ConnectedAt.Compare(b.ConnectedAt), cmp.Compare(a.Published, b.Published))
}

// newer orders grants by connect, then by id, so that no two are equal.
func newer(a, b *store.Grant) bool {
	return cmp.Or(byConnect(a, b), cmp.Compare(a.ID, b.ID)) > 0
}

func reasonFor(g *store.Grant, revoked map[string]time.Time) events.Reason {
	for account, at := range revoked {
		if !g.ConnectedSince(account).After(at) {
			return events.ReasonDisconnected
		}
	}
	return events.ReasonReplaced
}

// revoke erases a grant's tokens. Its document is deleted once its event is published and
// its removal at Mesh has ended.
func (c *Connector) revoke(ctx context.Context, g *store.Grant, reason events.Reason) error {
	if reason != events.ReasonDisconnected { // which erases leftovers too
		if err := c.parkLeftovers(ctx, g); err != nil {
			return err
		}
	}
	next := g.Clone()
	next.State, next.Reason = store.Revoked, reason
	next.Sealed, next.Chain, next.Lease, next.PurgeAt, next.HasLeftovers = envelope.Blob{}, nil, nil, nil, false
	c.opts.Settler.Schedule(next, nil)
	if err := c.opts.Settler.Announce(next, events.TokenRevoked, reason); err != nil {
		return err
	}
	if reason == events.ReasonDisconnected && c.opts.RemoveAtMesh {
		c.opts.Settler.KeepForRemoval(ctx, c.opts.Envelope, g, next)
	}
	if err := c.opts.Store.Save(ctx, next); err != nil {
		return err
	}
	c.opts.Audit.Add(g.AuditRecord(audit.Erased, string(reason), g.AccountIDs()))
	tracing.Log(ctx, c.opts.Log).Info("revoked", zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.String("reason", string(reason)))
	c.opts.Dispatcher.Send(ctx, next)
	return nil
}

// parkLeftovers makes dead letters of the leftovers of a grant. If there are any, the error wraps
// store.ErrConflict: the grant has changed.
func (c *Connector) parkLeftovers(ctx context.Context, g *store.Grant) error {
	if !g.HasLeftovers || c.opts.ParkLeftovers == nil {
		return nil
	}
	if _, ok, err := c.openTokens(ctx, g); err != nil || !ok {
		return err
	}
	if c.opts.ParkLeftovers(ctx, g).HasLeftovers {
		return fmt.Errorf("grant %s can't be removed before its leftovers are parked", g.ID)
	}
	return fmt.Errorf("revoking grant %s after making dead letters: %w", g.ID, store.ErrConflict)
}

// recordSpent records the refresh tokens of a grant that is disconnected, those that were
// replaced and one that is being presented, since other connects of the login may come.
func (c *Connector) recordSpent(ctx context.Context, g *store.Grant, user *userGrants) error {
	if g.Chain == nil {
		return nil
	}
	now := c.opts.Settler.Now()
	for _, l := range g.Chain.Links {
		if l.Until == nil || !l.Rotated {
			continue
		}
		if err := c.opts.Store.RecordSpent(ctx, l.Token, now, now.Add(c.opts.Remember)); err != nil {
			return err
		}
	}
	head := g.Chain.Head()
	if head == "" || g.Lease == nil || handingOver(g) || user.inConflict(g) {
		return nil // nobody presents it, or another grant waits for the answer
	}
	return c.opts.Store.RecordAwaited(ctx, head, answerUntil(g, now))
}

// recordSpentIn records the refresh tokens of a grant as spent in the grant that replaces it.
func (c *Connector) recordSpentIn(ctx context.Context, g *store.Grant, known []*store.Grant) error {
	i := slices.IndexFunc(known, func(other *store.Grant) bool { return len(lostAccounts(g, []*store.Grant{other}, nil)) > 0 })
	if i < 0 {
		return nil
	}
	next := known[i].Clone()
	next.Chain = next.Chain.WithReplacedGrant(g.Chain, c.opts.Settler.Now())
	if slices.Equal(next.Chain.Fingerprints(), known[i].Chain.Fingerprints()) {
		return nil
	}
	if err := c.opts.Store.Save(ctx, next); err != nil {
		return err
	}
	*known[i] = *next
	return nil
}

// trim takes accounts out of a grant. The answer to a refresh under way is applied to the
// others.
func (c *Connector) trim(ctx context.Context, g *store.Grant, gone []string, reason events.Reason) error {
	with, err := c.opts.Fingerprints.Sealer(ctx, g.UserID)
	if err != nil {
		return err
	}
	next := g.Clone()
	next.Accounts = slices.DeleteFunc(next.Accounts, func(a store.Account) bool { return slices.Contains(gone, a.ID) })
	tokens, err := store.OpenTokens(ctx, c.opts.Envelope, g.Sealed, g.Binding())
	switch {
	case err == nil:
		tokens.Accounts = slices.DeleteFunc(tokens.Accounts, func(a store.AccountToken) bool { return slices.Contains(gone, a.AccountID) })
		next.Version++
		with.SealTo(next, tokens, c.opts.Settler.Now(), false)
		if !next.HasSeparateRefreshTokens {
			next.AccountsDue = c.opts.Settler.Policy.AccountsDue(next)
		}
	case !errors.Is(err, envelope.ErrSealed): // a token set that never opens may stay
		return fmt.Errorf("taking accounts out of a grant: %w", err)
	}
	c.opts.Settler.Schedule(next, next.Due)
	if err := c.opts.Settler.Announce(next, events.TokenStored, reason); err != nil {
		return err
	}
	if err := c.opts.Store.Save(ctx, next); err != nil {
		return err
	}
	c.opts.Audit.Add(g.AuditRecord(audit.Erased, string(reason), gone))
	if next.Version != g.Version {
		c.opts.Audit.Add(next.AuditRecord(audit.Sealed, audit.OutcomeTrim, next.AccountIDs()))
	}
	c.opts.Dispatcher.Send(ctx, next)
	return nil
}
