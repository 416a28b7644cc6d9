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

// settleEarlier applies what earlier leases of a grant left in the recovery
// stream, and returns the grant as it then is. ours: the lease is still there
// and the token set the same, so that no replacement of its refresh token is
// known. That the stream holds nothing does not say so: somebody may just have
// applied an entry. A lease that ended without being given back may have waited for
// the answer to another grant, so that only a look at all grants tells whether the
// refresh token is spent.
func (r *Refresher) settleEarlier(ctx context.Context, leased *store.Grant, takenOver bool) (g *store.Grant, ours bool, err error) {
	err = r.recoverFirst(ctx, leased.ID)
	if err == nil && (takenOver || r.unsorted(leased)) {
		err = r.changed(ctx, leased.UserID)
	}
	if err != nil {
		_ = r.giveBack(ctx, leased) // if it fails the lease runs out
		return nil, false, fmt.Errorf("before refreshing grant %s: %w", leased.ID, err)
	}
	g, err = r.store.Get(ctx, leased.ID)
	if err != nil {
		return nil, false, err
	}
	if g.Lease == nil || g.Lease.Owner != leased.Lease.Owner {
		return g, false, nil
	}
	g.Unknown = leased.Unknown
	if g.Version != leased.Version { // accounts were taken out of it
		return nil, false, r.putOff(ctx, g)
	}
	return g, true, nil
}

// unsorted reports whether the connect that wrote a grant may have been cut off before
// the user's grants were sorted out: another may hold its refresh token.
func (r *Refresher) unsorted(g *store.Grant) bool {
	return g.State == store.Active && g.Outbox != nil && slices.ContainsFunc(g.Outbox.Events, func(e store.OutboxEvent) bool {
		return e.Subject == r.subjects.Lifecycle(events.TokenStored, g.UserID)
	})
}

// tooLate ends a refresh whose process was held up between lease and call: too
// little is left of the lease to call Mesh and save the answer.
func (r *Refresher) tooLate(ctx context.Context, g *store.Grant) error {
	tracing.Log(ctx, r.log).Warn("a refresh was held up until its lease was nearly over; it is put off", zap.String("grant", g.ID), zap.String("broker", g.BrokerType))
	return r.putOff(ctx, g)
}

// putOff gives a lease back under which nothing was presented, and has the
// action come again: it is as due as before. Where somebody else has changed the
// grant the error wraps store.ErrStale.
func (r *Refresher) putOff(ctx context.Context, g *store.Grant) error {
	err := r.giveBack(ctx, g)
	if errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("putting off the refresh of grant %s: %w", g.ID, store.ErrStale)
	}
	if err != nil {
		return err
	}
	return &LaterError{After: putOffFor, Why: "lease"}
}

// putOffFor is how long a refresh waits whose lease was given back unused.
const putOffFor = time.Second

// giveBack saves a grant without its lease, also where something else about it has
// changed under the lease. It is not cut short by the end of ctx.
func (r *Refresher) giveBack(ctx context.Context, g *store.Grant) error {
	ctx = context.WithoutCancel(ctx)
	for next := g.Clone(); ; {
		next.Lease, next.Unknown = nil, g.Unknown
		if next.Refused != nil && next.Refused.Version == next.Version {
			next.Refused = nil // nothing was presented for it: it may count again
		}
		err := r.store.Save(ctx, next)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		fresh, readErr := r.store.Get(ctx, g.ID)
		if readErr != nil || fresh.Lease == nil || fresh.Lease.Owner != g.Lease.Owner || fresh.Version != g.Version {
			return err
		}
		next = fresh
	}
}
