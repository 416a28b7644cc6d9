package refresher

import (
	"context"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// RefreshRefused refreshes a grant as Now does, since a caller reports access tokens of this version
// as refused. Within RefusedPause only one report of a grant counts, on any worker, so that a
// broken caller can't spend refreshes: the error of any other wraps store.ErrStale.
func (r *Refresher) RefreshRefused(ctx context.Context, g *store.Grant) (*store.Grant, error) {
	return r.onDemand(ctx, g, demand{refused: &store.RefusedReport{Version: g.Version, At: store.Milli(r.deps.Now())}})
}

// EndsWithReport reports whether a report ends the newest access tokens of a grant: its
// refresh token was refused before, and they have no other known end.
func EndsWithReport(g *store.Grant, now time.Time) bool {
	last := g.LastAccess()
	return GivenUp(g) && last != nil && last.ExpiresAt == nil && (g.Access.ExpiresAt == nil || g.Access.Expired(now))
}

// EndAccess ends the access tokens without a known end. WithoutRefresh then ends the
// grant, if they were the last.
func (s Settler) EndAccess(g *store.Grant) {
	now := store.Milli(s.Now())
	for i := range g.Accounts {
		if a := &g.Accounts[i]; a.ExpiresAt == nil {
			a.ExpiresAt = &now
		}
	}
	if g.Access.ExpiresAt == nil {
		g.Access.ExpiresAt = &now
	}
}

// EndReported ends the access tokens of a grant for which EndsWithReport holds.
func (r *Refresher) EndReported(ctx context.Context, g *store.Grant) (*store.Grant, error) {
	next := g.Clone()
	r.deps.Settler.EndAccess(next)
	if _, err := r.withoutRefresh(ctx, next); err != nil {
		return nil, err
	}
	return r.commitState(ctx, g, next)
}

// NextReportIn is in how long the next report of a grant counts.
func (r *Refresher) NextReportIn(g *store.Grant) time.Duration {
	if g.RefusedReport == nil {
		return 0
	}
	return max(g.RefusedReport.At.Add(r.deps.RefusedPause).Sub(r.deps.Now()), 0)
}

// CountReport counts a report of a refused access token by its outcome, one of package
// events. g is nil where the user has no such grant.
func (r *Refresher) CountReport(g *store.Grant, outcome string) {
	broker := noBroker
	if g != nil {
		broker = r.metrics.broker(g.BrokerType)
	}
	r.metrics.report(broker, outcome)
}

// noBroker labels reports of grants that a user does not have.
const noBroker = "none"

// RefreshFailing is what a reply says about a grant whose refreshes fail; nil: they don't.
func RefreshFailing(g *store.Grant) *events.RefreshFailing {
	if g.Failing == nil && g.State == store.Active && g.Attempts == 0 && g.Deferrals == 0 {
		return nil
	}
	out := &events.RefreshFailing{Reason: string(Transient)} // an earlier release only counted
	if g.Failing != nil {
		out.Since, out.Reason = new(g.Failing.Since), g.Failing.Why
	}
	if g.State != store.Active && g.Reason != "" { // which says more
		out.Reason = string(g.Reason)
	}
	return out
}
