package tokens

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// flights are the refreshes that requests wait for: one for each grant, however many
// requests wait for it.
type flights struct {
	mu      sync.Mutex
	byGrant map[string]*flight
}

type flight struct {
	begun time.Time
	// ended is closed once grant is the refreshed grant.
	ended chan struct{}
	grant *store.Grant
}

func flightKey(g *store.Grant) string { return fmt.Sprintf("%s.%d", g.ID, g.Version) }

// underWay returns the current refresh of a grant; nil: there is none.
func (f *flights) underWay(g *store.Grant) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byGrant[flightKey(g)]
}

// patience is how long a request waits for a refresh though a token is still valid, even
// one of another broker.
func (t *Service) patience() time.Duration { return t.opts.Config.Timeout / 10 }

// valid reports whether there is a token to hand out without a refresh.
func (t *Service) valid(g *store.Grant) bool { return t.unavailable(g) == "" }

// hasToken reports whether one of the grants has a token for a request without a refresh.
func (t *Service) hasToken(in events.TokenRequest, grants []*store.Grant) bool {
	return slices.ContainsFunc(grants, func(g *store.Grant) bool {
		its := g.Account(in.AccountID)
		return t.valid(g) && (in.AccountID == "" || its == nil || !t.expired(g.AccessOf(*its)))
	})
}

// waitIsUseless reports whether waiting for a refresh of a grant is of no use: none may start
// now, or there is a token to hand out and the current refresh already takes longer than
// usual.
func (t *Service) waitIsUseless(g *store.Grant, toGive bool) bool {
	if t.blockedFor(g) > 0 {
		return true
	}
	if !toGive {
		return false
	}
	f := t.flights.underWay(g)
	return f != nil && time.Since(f.begun) >= t.patience()
}

// blockedFor is how long no refresh of a grant may start: its broker's circuit breaker is
// open, all refreshes pause, or its own refreshes fail and the next attempt is scheduled.
// 0: one may.
func (t *Service) blockedFor(g *store.Grant) time.Duration {
	if after := t.opts.Refresher.SuspendedFor(g.BrokerType); after > 0 {
		return after
	}
	if (g.Attempts > 0 || g.Deferrals > 0) && g.Due != nil {
		return max(g.Due.At.Sub(t.opts.Now()), 0)
	}
	return 0
}

// retrySeconds is when to ask again if it is not known when that helps.
const retrySeconds = 1 // second

// retryAfter is in how many seconds it helps to ask again for a grant's tokens.
func (t *Service) retryAfter(g *store.Grant) int64 {
	return max(int64(math.Ceil(t.blockedFor(g).Seconds())), retrySeconds)
}

// await returns a grant after a refresh, or as it was if that takes longer than ctx, or
// than patience if there is a token to hand out. reported: its tokens were reported as
// refused.
func (t *Service) await(ctx context.Context, g *store.Grant, toGive, reported bool, caller string) *store.Grant {
	what := forBroker(g.BrokerType)
	if t.waitIsUseless(g, toGive) || !t.places.take(what, caller, 2*t.opts.Config.Concurrency) {
		return g
	}
	defer t.places.free(what, caller)
	f := t.joinRefresh(ctx, g, reported, caller)
	if f == nil {
		return g
	}
	var over <-chan time.Time
	if toGive {
		timer := time.NewTimer(t.patience() - time.Since(f.begun))
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-f.ended:
		return f.grant
	case <-over:
	case <-ctx.Done():
	}
	return g
}

// joinRefresh joins the refresh of a grant or starts one, which continues when no request waits
// for it any more. A refresh has a place of its own; nil: none is free.
func (t *Service) joinRefresh(ctx context.Context, g *store.Grant, reported bool, caller string) *flight {
	key, what := flightKey(g), forBroker(g.BrokerType)
	t.flights.mu.Lock()
	defer t.flights.mu.Unlock()
	if f := t.flights.byGrant[key]; f != nil {
		return f
	}
	if !t.places.take(what, caller, 2*t.opts.Config.Concurrency) {
		return nil
	}
	if t.flights.byGrant == nil {
		t.flights.byGrant = map[string]*flight{}
	}
	f := &flight{begun: time.Now(), ended: make(chan struct{}), grant: g}
	t.flights.byGrant[key] = f
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.opts.Config.Timeout)
	stop := context.AfterFunc(t.lifetime, cancel)
	go func() {
		defer func() {
			stop()
			cancel()
			t.flights.mu.Lock()
			delete(t.flights.byGrant, key)
			t.flights.mu.Unlock()
			t.places.free(what, caller)
			close(f.ended)
		}()
		defer t.logPanic("a refresh on request failed", g)
		f.grant = t.refresh(ctx, g, reported)
	}()
	return f
}

// logPanic, deferred, ends a panic.
func (t *Service) logPanic(what string, g *store.Grant) {
	if v := recover(); v != nil {
		t.opts.Log.Error(what, zap.String("grant", g.ID), zap.Error(panicError(v)))
	}
}

// refresh refreshes a grant, or waits for another worker to do so, until it is refreshed,
// can't be for now, or ctx ends. It returns the grant as last seen. A reported grant is
// refreshed only if the report counts.
func (t *Service) refresh(ctx context.Context, g *store.Grant, reported bool) *store.Grant {
	version := g.Version
	for wait := 20 * time.Millisecond; ctx.Err() == nil; wait = min(wait*2, time.Second) {
		// A new token may live shorter than requested.
		if g.Version != version || g.State != store.Active || refresher.RefreshTokenExpired(g, t.opts.Now()) || t.blockedFor(g) > 0 {
			return g
		}
		now := t.opts.Refresher.RefreshNow
		if reported {
			if !t.reportCounts(g) {
				return g
			}
			now = t.opts.Refresher.RefreshRefused
		}
		next, err := now(ctx, g)
		t.grants.invalidate(g.UserID) // its event may be on the way still
		switch {
		case err == nil && next != nil:
			g, reported = next, false // the report has counted
			continue
		case errors.As(err, new(*refresher.LaterError)), errors.Is(err, refresher.ErrStopping):
			return g
		case errors.Is(err, store.ErrNotFound):
			return erased(g)
		case err != nil && !errors.Is(err, store.ErrStale) && !refresher.Outage(err):
			t.opts.Log.Error("a refresh on request failed", zap.String("grant", g.ID), zap.Error(err))
			return g
		}
		if pause.For(ctx, wait) != nil {
			return g
		}
		if seen, err := t.opts.Store.Get(ctx, g.ID); err == nil {
			g = seen
		} else if errors.Is(err, store.ErrNotFound) {
			return erased(g)
		}
	}
	return g
}

// erased returns a grant that is no longer stored as one whose tokens nobody may get.
func erased(g *store.Grant) *store.Grant {
	gone := g.Clone()
	gone.State = store.Revoked
	return gone
}
