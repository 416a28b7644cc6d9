package refresher

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
)

// applyEarlierAnswers applies what earlier leases of a grant left in the recovery stream, if
// they may have, and returns the grant as stored then. ours: it is still leased by us
// with the same token set, so no replacement of its refresh token is known. An empty
// stream does not prove that: another worker may just have applied an entry. A lease
// that ran out may have waited for the answer to another grant, so only a check of all
// of the user's grants shows whether the refresh token is spent.
func (r *Refresher) applyEarlierAnswers(ctx context.Context, leased *store.Grant, takenOver bool) (g *store.Grant, ours bool, err error) {
	if !takenOver && leased.Unknown == nil && leased.Applied >= leased.Epoch-1 && !r.mayBeUnresolved(leased) {
		return leased, true, nil
	}
	err = r.recoverFirst(ctx, leased.ID)
	if err == nil && (takenOver || r.mayBeUnresolved(leased)) {
		err = r.deps.Resolve(ctx, leased.UserID)
	}
	if err != nil {
		_ = r.giveBack(ctx, leased) // if it fails the lease runs out
		return nil, false, fmt.Errorf("before refreshing grant %s: %w", leased.ID, err)
	}
	g, err = r.deps.Store.Get(ctx, leased.ID)
	if err != nil {
		return nil, false, err
	}
	if !sameLease(g, leased) {
		return g, false, nil
	}
	g.Unknown = leased.Unknown
	if g.Version != leased.Version { // accounts were taken out of it
		return nil, false, r.postpone(ctx, g)
	}
	return g, true, nil
}

// mayBeUnresolved reports whether the connect that wrote a grant may have been cut off before
// the user's grants were sorted out: another may hold its refresh token.
func (r *Refresher) mayBeUnresolved(g *store.Grant) bool {
	return g.State == store.Active && g.Outbox != nil && slices.ContainsFunc(g.Outbox.Events, func(e store.OutboxEvent) bool {
		return e.Subject == r.deps.Subjects.Lifecycle(events.TokenStored, g.UserID)
	})
}

// postponeLate ends a refresh whose process was suspended: too little is left of the lease to
// call Mesh and save the answer.
func (r *Refresher) postponeLate(ctx context.Context, g *store.Grant) error {
	tracing.Log(ctx, r.deps.Log).Warn("a refresh was delayed until its lease had almost ended; it is postponed", zap.String("grant", g.ID), zap.String("broker", g.BrokerType))
	return r.postpone(ctx, g)
}

// postpone gives back a lease under which no token was presented; the action is as due as
// before. The error wraps store.ErrStale where somebody else has changed the grant.
func (r *Refresher) postpone(ctx context.Context, g *store.Grant) error {
	err := r.giveBack(ctx, g)
	if errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("postponing the refresh of grant %s: %w", g.ID, store.ErrStale)
	}
	if err != nil {
		return err
	}
	return &LaterError{After: postponeFor, Why: "lease"}
}

const postponeFor = time.Second // how long a refresh waits whose lease was given back unused

// giveBack saves a grant without its lease. The end of ctx does not stop it.
func (r *Refresher) giveBack(ctx context.Context, g *store.Grant) error {
	_, err := r.underLease(context.WithoutCancel(ctx), g, func(next *store.Grant) error {
		if next.Version != g.Version {
			return store.ErrStale
		}
		next.Lease, next.Unknown = nil, g.Unknown
		if next.RefusedReport != nil && next.RefusedReport.Version == next.Version {
			next.RefusedReport = nil // nothing was presented for it: it may count again
		}
		return nil
	})
	return err
}

// underLease is Store.Change for as long as a grant has the same lease. When that is lost
// the error wraps store.ErrConflict, and the grant is as stored.
func (r *Refresher) underLease(ctx context.Context, g *store.Grant, change func(next *store.Grant) error) (*store.Grant, error) {
	var stored *store.Grant
	next, err := r.deps.Store.Change(ctx, g, func(read *store.Grant) (*store.Grant, error) {
		if stored = read; read != g && !sameLease(read, g) {
			return nil, nil
		}
		next := read.Clone()
		return next, change(next)
	})
	if err == nil && next == nil {
		return stored, fmt.Errorf("the lease of grant %s is lost: %w", g.ID, store.ErrConflict)
	}
	return next, err
}

func sameLease(a, b *store.Grant) bool {
	return a.Lease != nil && b.Lease != nil && a.Lease.Owner == b.Lease.Owner
}
