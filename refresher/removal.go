package refresher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
)

// Where that is configured, what a user has disconnected is removed at Mesh too. The revoked
// grant keeps only the access tokens for that, sealed, until it is done or given up. A new
// connect of the same accounts replaces the record.

const (
	// removeFor is how long a removal is tried, refusedFor how long every answer has to
	// be a refusal before that is final: a bad deploy may refuse for a while.
	removeFor  = 7 * 24 * time.Hour
	refusedFor = 24 * time.Hour
	removeMost = 6 * time.Hour // the longest pause between two tries
)

// Outcomes of removals in metrics beside the reasons of their events.
const (
	removeAgain     = "again"           // a try that failed; another follows
	removeConnected = "connected_again" // nothing was removed: the user is back
)

var removalReasons = []events.Reason{
	events.ReasonRemoved, events.ReasonRemovalRefused, events.ReasonRemovalTimedOut, events.ReasonNoAccessToken, events.ReasonUnreadable,
}

// KeepForRemoval has a grant that is being revoked keep its access tokens for the
// removal at Mesh. If the set can't be opened now it stays as it is, sealed, until the
// first try: the erasure does not wait for KMS.
func (s Settler) KeepForRemoval(ctx context.Context, e *envelope.Envelope, before, next *store.Grant) {
	now := store.Milli(s.Now())
	next.Removal = &store.Removal{Since: now, Due: now}
	next.Sealed = before.Sealed
	tokens, err := store.OpenTokens(ctx, e, before.Sealed, before.Binding())
	if err != nil {
		return
	}
	sealer, err := e.Sealer(ctx, next.UserID)
	if err != nil {
		return
	}
	next.Version++
	sealRemoval(sealer, next, tokens)
}

// sealRemoval has a revoked grant keep the access tokens of a set, sealed.
func sealRemoval(sealer envelope.Sealer, g *store.Grant, tokens store.TokenSet) {
	kept := store.TokenSet{Accounts: []store.AccountToken{}}
	for _, a := range tokens.Accounts {
		if !a.AccessToken.Empty() {
			kept.Accounts = append(kept.Accounts, store.AccountToken{AccountID: a.AccountID, AccessToken: a.AccessToken})
		}
	}
	g.Sealed = store.SealTokens(sealer, kept, g.Binding())
	g.BrokerName = ""
	for i := range g.Accounts {
		g.Accounts[i].Name = ""
	}
}

// Removals tries the removals that are due.
func (r *Reconciler) Removals(ctx context.Context) error {
	w := r.refresher
	return r.workThrough(ctx, &r.removalWalk, "removal", r.pages(w.deps.Store.Removals, time.Millisecond), func(ctx context.Context, g *store.Grant) (bool, error) {
		err := w.removeAtMesh(ctx, g)
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
			return false, nil // another worker has it, or the user is back
		}
		return err == nil, err
	})
}

type removal struct {
	removed, givenUp []string // accounts
	withoutToken     []string // accounts that have no access token
	left             []store.AccountToken
	reconnected      bool // an account stands in a grant again
	refused          bool // every answer was a refusal
	wait             time.Duration
}

// removeAtMesh makes one try for a revoked grant.
func (r *Refresher) removeAtMesh(ctx context.Context, listed *store.Grant) error {
	if listed.Removal == nil || listed.State != store.Revoked {
		return nil
	}
	now := store.Milli(r.deps.Now())
	g := listed.Clone()
	// The next try is due whatever becomes of this one. Whose write succeeds makes this one.
	wait := delay(config.Backoff{Min: r.deps.Settler.Backoff.Min, Max: removeMost}, g.Removal.Attempts, 1)
	g.Removal.Attempts++
	g.Removal.Due = now.Add(wait/2 + r.deps.Settler.jitter(wait/2))
	if err := r.deps.Store.Save(ctx, g); err != nil {
		return err
	}
	tokens, err := r.Tokens(ctx, g)
	if errors.Is(err, envelope.ErrSealed) {
		return r.endRemoval(ctx, g, removal{givenUp: g.AccountIDs()}, events.ReasonUnreadable)
	}
	if err != nil {
		return fmt.Errorf("removing the connections of grant %s at Mesh: %w", g.ID, err)
	}
	if len(byToken(tokens.Accounts)) == 0 {
		return r.endRemoval(ctx, g, removal{givenUp: g.AccountIDs()}, events.ReasonNoAccessToken)
	}
	r.record(audit.Opened, audit.OutcomeRemove, g)
	try, err := r.attemptRemoval(ctx, g, tokens)
	if err != nil {
		return err
	}
	if len(try.left) == 0 {
		return r.endRemoval(ctx, g, try, "")
	}
	if !try.refused {
		g.Removal.Refused = nil
	} else if g.Removal.Refused == nil {
		g.Removal.Refused = &now
	}
	var reason events.Reason
	switch {
	case try.refused && !now.Before(g.Removal.Refused.Add(refusedFor)):
		reason = events.ReasonRemovalRefused
	case !now.Before(g.Removal.Since.Add(removeFor)):
		reason = events.ReasonRemovalTimedOut
	}
	if reason != "" {
		for _, a := range try.left {
			try.givenUp = append(try.givenUp, a.AccountID)
		}
		return r.endRemoval(ctx, g, try, reason)
	}
	sealer, err := r.deps.Envelope.Sealer(ctx, g.UserID)
	if err != nil {
		return err
	}
	if asked := now.Add(min(try.wait, removeMost)); asked.After(g.Removal.Due) {
		g.Removal.Due = asked
	}
	if err := r.announceAttempt(g, try); err != nil {
		return err
	}
	g.Accounts = slices.DeleteFunc(g.Accounts, func(a store.Account) bool {
		return !slices.ContainsFunc(try.left, func(left store.AccountToken) bool { return left.AccountID == a.ID })
	})
	g.Version++
	sealRemoval(sealer, g, store.TokenSet{Accounts: try.left})
	if err := r.deps.Store.Save(ctx, g); err != nil {
		return err
	}
	r.metrics.removals.WithLabelValues(removeAgain).Inc()
	r.deps.Dispatcher.Send(ctx, g)
	return nil
}

// attemptRemoval has Mesh remove the connection of each access token, except of accounts
// that the user has connected again.
func (r *Refresher) attemptRemoval(ctx context.Context, g *store.Grant, tokens store.TokenSet) (try removal, err error) {
	try.refused = true
	for _, a := range g.Accounts {
		if has := tokens.Account(a.ID); has != nil && !has.AccessToken.Empty() {
			continue
		}
		back, err := r.connectedAgain(ctx, g, []store.AccountToken{{AccountID: a.ID}})
		if err != nil {
			return try, err
		}
		if !back {
			try.withoutToken = append(try.withoutToken, a.ID)
		}
	}
	for _, sharing := range byToken(tokens.Accounts) {
		back, err := r.connectedAgain(ctx, g, sharing)
		if err != nil {
			return try, err
		}
		if back {
			try.reconnected = true
			continue
		}
		var failed *RemoveError
		if err := r.deps.Mesh.Remove(ctx, sharing[0].AccessToken, g.BrokerType); err != nil && !errors.As(err, &failed) {
			return try, err
		}
		if failed != nil {
			tracing.Log(ctx, r.deps.Log).Warn("a connection could not be removed at Mesh", zap.String("grant", g.ID), zap.String("broker", g.BrokerType),
				zap.Int("attempt", g.Removal.Attempts), zap.Bool("refused", failed.Refused), zap.Error(failed))
			try.left = append(try.left, sharing...)
			try.refused = try.refused && failed.Refused
			try.wait = max(try.wait, failed.RetryAfter)
			continue
		}
		for _, a := range sharing {
			try.removed = append(try.removed, a.AccountID)
		}
	}
	return try, nil
}

func byToken(accounts []store.AccountToken) (groups [][]store.AccountToken) {
	for _, a := range accounts {
		if a.AccessToken.Empty() {
			continue
		}
		i := slices.IndexFunc(groups, func(sharing []store.AccountToken) bool { return sharing[0].AccessToken.Equal(a.AccessToken) })
		if i < 0 {
			i, groups = len(groups), append(groups, nil)
		}
		groups[i] = append(groups[i], a)
	}
	return groups
}

// connectedAgain reports whether the user has connected one of these accounts again, or
// has a grant at the same broker whose accounts are not known yet. It comes right before
// every call: what is connected again must not be removed.
func (r *Refresher) connectedAgain(ctx context.Context, g *store.Grant, accounts []store.AccountToken) (bool, error) {
	all, err := r.deps.Store.ByUser(ctx, g.UserID)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(all, func(other *store.Grant) bool {
		if other.State == store.Revoked || !events.SameBroker(other.BrokerType, g.BrokerType) {
			return false
		}
		return len(other.Accounts) == 0 || slices.ContainsFunc(accounts, func(a store.AccountToken) bool {
			return a.AccountID == "" || other.Account(a.AccountID) != nil
		})
	}), nil
}

// announceRemoval announces what became of the removal of some accounts.
func (r *Refresher) announceRemoval(g *store.Grant, accounts []string, reason events.Reason) error {
	if len(accounts) == 0 && len(g.Accounts) > 0 {
		return nil
	}
	about := g.Clone()
	about.Accounts = slices.DeleteFunc(about.Accounts, func(a store.Account) bool { return !slices.Contains(accounts, a.ID) })
	if err := r.deps.Settler.Announce(about, events.TokenRemoval, reason); err != nil {
		return err
	}
	g.Outbox = about.Outbox
	r.metrics.removals.WithLabelValues(string(reason)).Inc()
	return nil
}

// announceAttempt announces what a try has removed, and what has no access token for that.
func (r *Refresher) announceAttempt(g *store.Grant, try removal) (err error) {
	if len(try.removed) > 0 {
		err = r.announceRemoval(g, try.removed, events.ReasonRemoved)
	}
	if len(try.withoutToken) > 0 {
		err = errors.Join(err, r.announceRemoval(g, try.withoutToken, events.ReasonNoAccessToken))
	}
	return err
}

// endRemoval announces what became of a removal that is not tried again, and drops the
// record. reason says why accounts were given up.
func (r *Refresher) endRemoval(ctx context.Context, g *store.Grant, try removal, reason events.Reason) error {
	log := tracing.Log(ctx, r.deps.Log).With(zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.Int("attempt", g.Removal.Attempts))
	if err := r.announceAttempt(g, try); err != nil {
		return err
	}
	if len(try.removed) > 0 {
		log.Info("removed at Mesh")
	}
	if reason != "" {
		if err := r.announceRemoval(g, try.givenUp, reason); err != nil {
			return err
		}
		log.Error("a removal at Mesh is given up: what the user disconnected may still be there", zap.String("reason", string(reason)))
	}
	if try.reconnected {
		r.metrics.removals.WithLabelValues(removeConnected).Inc()
		log.Info("a removal at Mesh is dropped: the user has connected again")
	}
	r.deps.Settler.Schedule(g, nil) // an outbox, even without an event: once it is delivered the record is deleted
	g.Removal, g.Sealed = nil, envelope.Blob{}
	if err := r.deps.Store.Save(ctx, g); err != nil {
		return err
	}
	r.record(audit.Erased, audit.OutcomeRemove, g)
	r.deps.Dispatcher.Send(ctx, g)
	return nil
}
