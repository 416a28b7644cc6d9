package tokens

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// A report that a token was refused where it was used causes a refresh, if the grant
// still has that version. How often follows from the stored grant alone: the version of
// the report, the lease, and when the last report counted.

// report is a token that a request names as refused.
type report struct {
	events.RefusedToken
	// grant is the reported one; nil: the user has no such grant, or it never had that
	// version.
	grant *store.Grant
}

// current reports whether the grant still has what was refused.
func (r report) current() bool { return r.grant != nil && r.grant.Current(r.Version) }

// reportsOf finds the grants that a request names, among all of its user's.
func reportsOf(in events.TokenRequest, all []*store.Grant) (reports []report) {
	for _, token := range in.Refused {
		r := report{RefusedToken: token}
		i := slices.IndexFunc(all, func(g *store.Grant) bool { return g.ID == token.GrantID })
		if i >= 0 && all[i].State != store.Revoked && token.Version <= all[i].Version {
			r.grant = all[i]
		}
		reports = append(reports, r)
	}
	return reports
}

// endReported ends access tokens whose only known end is a report, and returns the
// grants after that.
func (t *Service) endReported(ctx context.Context, in events.TokenRequest, all []*store.Grant) ([]*store.Grant, error) {
	for _, r := range reportsOf(in, all) {
		i := slices.Index(all, r.grant)
		if !r.current() || i < 0 || !refresher.EndsWithReport(r.grant, t.opts.Now()) {
			continue
		}
		ended, err := t.opts.Refresher.EndReported(ctx, r.grant)
		t.grants.invalidate(in.UserID)
		if errors.Is(err, store.ErrNotFound) { // erased meanwhile
			ended, err = erased(r.grant), nil
		}
		if err != nil {
			return nil, err
		}
		all = slices.Clone(all)
		all[i] = ended
	}
	return all, nil
}

// reportCounts reports whether a report of a grant's current version starts a refresh now, or
// waits for the current one.
func (t *Service) reportCounts(g *store.Grant) bool {
	now := t.opts.Now()
	return g.State == store.Active && !refresher.RefreshTokenExpired(g, now) && t.blockedFor(g) == 0 &&
		(g.Lease.Valid(now) || t.opts.Refresher.NextReportIn(g) == 0)
}

// reportedGrants returns the ids of the grants whose current version is reported, if that
// counts, and appends those that are not wanted to the wanted grants.
func (t *Service) reportedGrants(reports []report, wanted []*store.Grant) (ids map[string]bool, grants []*store.Grant) {
	ids, grants = map[string]bool{}, wanted
	for _, r := range reports {
		if !r.current() || !t.reportCounts(r.grant) || ids[r.GrantID] {
			continue
		}
		ids[r.GrantID] = true
		if !slices.Contains(grants, r.grant) {
			grants = append(grants, r.grant)
		}
	}
	return ids, grants
}

// results says what became of reports, by the current grants, and counts it.
func (t *Service) results(reports []report, now []*store.Grant) (results []events.RefusedResult) {
	for _, r := range reports {
		after := r.grant
		if i := slices.IndexFunc(now, func(g *store.Grant) bool { return g.ID == r.GrantID }); after != nil && i >= 0 {
			after = now[i]
		}
		outcome, wait := t.outcome(r, after)
		t.opts.Refresher.CountReport(r.grant, outcome)
		results = append(results, events.RefusedResult{GrantID: r.GrantID, Version: r.Version, Outcome: outcome, RetryAfterSeconds: int64(math.Ceil(wait.Seconds()))})
	}
	return results
}

// outcome says what became of a report, and for how long a repetition would be useless.
func (t *Service) outcome(r report, after *store.Grant) (string, time.Duration) {
	switch {
	case r.grant == nil:
		return events.RefusedUnknown, 0
	case !r.current():
		return events.RefusedReplaced, 0
	case !after.Current(r.Version):
		return events.RefusedRefreshed, 0
	case after.State != store.Active || refresher.RefreshTokenExpired(after, t.opts.Now()):
		return events.RefusedNotRefreshable, 0
	}
	if blocked := t.blockedFor(after); blocked > 0 {
		return events.RefusedBusy, blocked
	}
	atWork := after.Lease.Valid(t.opts.Now()) || after.Attempts > 0 || after.Deferrals > 0 // the next attempt is scheduled
	if pause := t.opts.Refresher.NextReportIn(after); pause > 0 && !atWork {
		return events.RefusedTooSoon, pause
	}
	return events.RefusedBusy, retrySeconds * time.Second
}
