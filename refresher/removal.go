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

// What a user has disconnected is removed at Mesh too, where that is configured.
// The grant is revoked first, and with that its tokens are gone for everybody; what
// its record keeps until the removal is done or given up are the access tokens for
// it, sealed. A new connect of the same accounts takes the record's place.

const (
	// removeFor is how long a removal is tried. Answers that refuse it count as the
	// last word when there were no others for refusedFor, whether the access token has
	// ended or not: what refuses it may be a bad deploy.
	removeFor  = 7 * 24 * time.Hour
	refusedFor = 24 * time.Hour
	// removeMost is the longest pause between two tries; the shortest is that of
	// refreshes.
	removeMost = 6 * time.Hour
)

// Outcomes of removals in metrics beside the reasons of their events.
const (
	removeAgain     = "again"           // a try that failed; another follows
	removeConnected = "connected_again" // nothing was removed: the user is back
)

// removalReasons are the reasons of token.removal events.
var removalReasons = []events.Reason{
	events.ReasonRemoved, events.ReasonRemovalRefused, events.ReasonRemovalTimedOut, events.ReasonNoAccessToken, events.ReasonUnreadable,
}

// KeepForRemoval makes a grant that is being revoked keep what its removal at Mesh
// takes: its access tokens. While they can't be opened the whole set stays as it is,
// sealed, until the first try; the erasure does not wait for KMS.
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

// sealRemoval seals the access tokens of a set, and nothing else of it, as what a
// revoked grant keeps.
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

// watchRemovals tries the removals that are due until ctx ends. It runs apart from
// passes: it waits for Mesh.
func (r *Reconciler) watchRemovals(ctx context.Context) {
	for {
		if err := r.bounded(ctx, r.Removals); err != nil && ctx.Err() == nil {
			r.Refresher.log.Error("removals at Mesh failed; the next look goes on", zap.Error(err))
		}
		select {
		case <-time.After(r.look()):
		case <-ctx.Done():
			return
		}
	}
}

// Removals tries the removals that are due.
func (r *Reconciler) Removals(ctx context.Context) error {
	w := r.Refresher
	return r.through(ctx, &r.removalWalk, "removal", func(ctx context.Context, after store.Place) (store.Page, error) {
		return w.store.Removals(ctx, w.now().Add(time.Millisecond), after, r.Config.Batch)
	}, func(ctx context.Context, g *store.Grant) (bool, error) {
		err := w.removeAtMesh(ctx, g)
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
			return false, nil // another worker has it, or the user is back
		}
		return err == nil, err
	})
}

// removal is one try.
type removal struct {
	removed, givenUp []string // accounts
	without          []string // accounts that have no access token
	left             []store.AccountToken
	back             bool // an account stands in a grant again
	refused          bool // every answer was a refusal
	wait             time.Duration
}

// removeAtMesh makes one try for a revoked grant.
func (r *Refresher) removeAtMesh(ctx context.Context, listed *store.Grant) error {
	if listed.Removal == nil || listed.State != store.Revoked {
		return nil
	}
	now := store.Milli(r.now())
	g := listed.Clone()
	// The next try is due whatever becomes of this one. Who writes it has this one.
	wait := delay(config.Backoff{Min: r.settler.Backoff.Min, Max: removeMost}, g.Removal.Tries, 1)
	g.Removal.Tries++
	g.Removal.Due = now.Add(wait/2 + r.settler.jitter(wait/2))
	if err := r.store.Save(ctx, g); err != nil {
		return err
	}
	tokens, err := store.OpenTokens(ctx, r.envelope, g.Sealed, g.Binding())
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
	try, err := r.tryRemoval(ctx, g, tokens)
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
	reason := events.Reason("")
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
	sealer, err := r.envelope.Sealer(ctx, g.UserID)
	if err != nil {
		return err
	}
	if asked := now.Add(min(try.wait, removeMost)); asked.After(g.Removal.Due) {
		g.Removal.Due = asked
	}
	if err := r.tellRemoval(g, try.removed, events.ReasonRemoved); err != nil {
		return err
	}
	if err := r.tellWithout(g, try); err != nil {
		return err
	}
	g.Accounts = slices.DeleteFunc(g.Accounts, func(a store.Account) bool {
		return !slices.ContainsFunc(try.left, func(left store.AccountToken) bool { return left.AccountID == a.ID })
	})
	g.Version++
	sealRemoval(sealer, g, store.TokenSet{Accounts: try.left})
	if err := r.store.Save(ctx, g); err != nil {
		return err
	}
	r.metrics.removals.WithLabelValues(removeAgain).Inc()
	r.dispatcher.Send(ctx, g)
	return nil
}

// tryRemoval asks Mesh to remove what the access tokens stand for, each once, and
// none of an account that the user has connected again.
func (r *Refresher) tryRemoval(ctx context.Context, g *store.Grant, tokens store.TokenSet) (try removal, err error) {
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
			try.without = append(try.without, a.ID)
		}
	}
	for _, sharing := range byToken(tokens.Accounts) {
		back, err := r.connectedAgain(ctx, g, sharing)
		if err != nil {
			return try, err
		}
		if back {
			try.back = true
			continue
		}
		var failed *RemoveError
		if err := r.mesh.Remove(ctx, sharing[0].AccessToken, g.BrokerType); err != nil && !errors.As(err, &failed) {
			return try, err
		}
		if failed != nil {
			tracing.Log(ctx, r.log).Warn("a connection could not be removed at Mesh", zap.String("grant", g.ID), zap.String("broker", g.BrokerType),
				zap.Int("attempt", g.Removal.Tries), zap.Bool("refused", failed.Refused), zap.Error(failed))
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

// byToken puts the accounts together that share an access token.
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

// connectedAgain reports whether one of some accounts, or one that is not known yet,
// stands in a grant of the user at the same broker. It is asked right before every
// call: what the user has connected again must not be removed.
func (r *Refresher) connectedAgain(ctx context.Context, g *store.Grant, accounts []store.AccountToken) (bool, error) {
	all, err := r.store.ByUser(ctx, g.UserID)
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

// tellRemoval announces what became of the removal of some accounts.
func (r *Refresher) tellRemoval(g *store.Grant, accounts []string, reason events.Reason) error {
	if len(accounts) == 0 && len(g.Accounts) > 0 {
		return nil
	}
	about := g.Clone()
	about.Accounts = slices.DeleteFunc(about.Accounts, func(a store.Account) bool { return !slices.Contains(accounts, a.ID) })
	if err := r.settler.Announce(about, events.TokenRemoval, reason); err != nil {
		return err
	}
	g.Outbox = about.Outbox
	r.metrics.removals.WithLabelValues(string(reason)).Inc()
	return nil
}

// tellWithout announces which accounts can't be removed for lack of an access token,
// while others of their grant can.
func (r *Refresher) tellWithout(g *store.Grant, try removal) error {
	if len(try.without) == 0 {
		return nil
	}
	return r.tellRemoval(g, try.without, events.ReasonNoAccessToken)
}

// endRemoval tells what became of a removal that is not tried again, and lets go of
// the record. reason is why the accounts that were given up were.
func (r *Refresher) endRemoval(ctx context.Context, g *store.Grant, try removal, reason events.Reason) error {
	log := tracing.Log(ctx, r.log).With(zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.Int("attempt", g.Removal.Tries))
	if len(try.removed) > 0 {
		if err := r.tellRemoval(g, try.removed, events.ReasonRemoved); err != nil {
			return err
		}
		log.Info("removed at Mesh")
	}
	if err := r.tellWithout(g, try); err != nil {
		return err
	}
	if reason != "" {
		if err := r.tellRemoval(g, try.givenUp, reason); err != nil {
			return err
		}
		log.Error("a removal at Mesh is given up: what the user disconnected may still be there", zap.String("reason", string(reason)))
	}
	if try.back {
		r.metrics.removals.WithLabelValues(removeConnected).Inc()
		log.Info("a removal at Mesh is dropped: the user has connected again")
	}
	r.settler.Schedule(g, nil) // an outbox, even with nothing to tell: with it the record goes
	g.Removal, g.Sealed = nil, envelope.Blob{}
	if err := r.store.Save(ctx, g); err != nil {
		return err
	}
	r.record(audit.Erased, audit.OutcomeRemove, g)
	r.dispatcher.Send(ctx, g)
	return nil
}
