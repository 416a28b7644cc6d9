package handlers

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
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// flights are the refreshes that requests wait for: one of a grant, for all that
// want it.
type flights struct {
	mu      sync.Mutex
	byGrant map[string]*flight
}

type flight struct {
	begun time.Time
	// ended is closed when grant is what became of it.
	ended chan struct{}
	grant *store.Grant
}

func flightOf(g *store.Grant) string { return fmt.Sprintf("%s.%d", g.ID, g.Version) }

// underWay returns the refresh of a grant that is under way; nil: none is.
func (f *flights) underWay(g *store.Grant) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byGrant[flightOf(g)]
}

// patience is how long a request waits for a refresh though it has a token to
// give that is valid still, be it another broker's.
func (t *TokenService) patience() time.Duration { return t.cfg.Timeout / 10 }

// valid reports whether there is a token to give without a refresh.
func (t *TokenService) valid(g *store.Grant) bool { return t.unavailable(g) == "" }

// toGive reports whether one of some grants has a token to give for a request without
// a refresh.
func (t *TokenService) toGive(in events.TokenRequest, grants []*store.Grant) bool {
	return slices.ContainsFunc(grants, func(g *store.Grant) bool {
		its := g.Account(in.AccountID)
		return t.valid(g) && (in.AccountID == "" || its == nil || !t.over(g.AccessOf(*its)))
	})
}

// inVain reports whether waiting for a refresh of a grant is of no use: none may
// start for now, or there is a token to give and one is under way for longer
// than it takes as a rule.
func (t *TokenService) inVain(g *store.Grant, toGive bool) bool {
	if t.heldBack(g) > 0 {
		return true
	}
	if !toGive {
		return false
	}
	f := t.flights.underWay(g)
	return f != nil && time.Since(f.begun) >= t.patience()
}

// heldBack is how long a refresh of a grant may not start: its broker's breaker
// is open, all refreshes pause, or its own refreshes fail and the next try has
// its time. 0: one may.
func (t *TokenService) heldBack(g *store.Grant) time.Duration {
	if after := t.refresher.Suspended(g.BrokerType); after > 0 {
		return after
	}
	if (g.Tries > 0 || g.Waits > 0) && g.Due != nil {
		return max(g.Due.At.Sub(t.now()), 0)
	}
	return 0
}

// soon is when to ask again where nothing tells when it helps.
const soon = 1 // second

// retryAfter is in how many seconds it helps to ask again for a grant's tokens.
func (t *TokenService) retryAfter(g *store.Grant) int64 {
	return max(int64(math.Ceil(t.heldBack(g).Seconds())), soon)
}

// await returns a grant as it is after a refresh, or as it was if that takes too
// long: while ctx lasts, or only a moment if there is a token to give. reported:
// its tokens were reported as refused.
func (t *TokenService) await(ctx context.Context, g *store.Grant, toGive, reported bool, caller string) *store.Grant {
	what := forBroker(g.BrokerType)
	if t.inVain(g, toGive) || !t.places.take(what, caller, 2*t.cfg.Concurrency) {
		return g
	}
	defer t.places.free(what, caller)
	f := t.fly(ctx, g, reported, caller)
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

// fly joins the refresh of a grant or begins it, which goes on when nobody waits
// any more. It holds a place of its own; nil: there is none.
func (t *TokenService) fly(ctx context.Context, g *store.Grant, reported bool, caller string) *flight {
	key, what := flightOf(g), forBroker(g.BrokerType)
	t.flights.mu.Lock()
	defer t.flights.mu.Unlock()
	if f := t.flights.byGrant[key]; f != nil {
		return f
	}
	if !t.places.take(what, caller, 2*t.cfg.Concurrency) {
		return nil
	}
	if t.flights.byGrant == nil {
		t.flights.byGrant = map[string]*flight{}
	}
	f := &flight{begun: time.Now(), ended: make(chan struct{}), grant: g}
	t.flights.byGrant[key] = f
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.cfg.Timeout)
	stop := context.AfterFunc(t.closing, cancel)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				t.log.Error("a refresh on request failed", zap.String("grant", g.ID), zap.Error(fmt.Errorf("%w of token requests (%T)", errPanic, v)))
			}
			stop()
			cancel()
			t.flights.mu.Lock()
			delete(t.flights.byGrant, key)
			t.flights.mu.Unlock()
			t.places.free(what, caller)
			close(f.ended)
		}()
		f.grant = t.refresh(ctx, g, reported)
	}()
	return f
}

// refresh refreshes a grant, or waits for whoever is at it, until it is
// refreshed or can't be for now, or ctx ends. It returns the grant as last seen.
// Where it is for a report, that has to count.
func (t *TokenService) refresh(ctx context.Context, g *store.Grant, reported bool) *store.Grant {
	version := g.Version
	for pause := 20 * time.Millisecond; ctx.Err() == nil; pause = min(pause*2, time.Second) {
		// A token newly got may be shorter than what was asked for.
		if g.Version != version || g.State != store.Active || refresher.RefreshTokenOver(g, t.now()) || t.heldBack(g) > 0 {
			return g
		}
		now := t.refresher.Now
		if reported {
			if !t.counts(g) {
				return g
			}
			now = t.refresher.Refused
		}
		next, err := now(ctx, g)
		t.grants.changed(g.UserID) // its event may be on the way still
		switch later := (*refresher.LaterError)(nil); {
		case err == nil && next != nil:
			g, reported = next, false // it has counted
			continue
		case errors.As(err, &later), errors.Is(err, refresher.ErrStopping):
			return g
		case err != nil && !errors.Is(err, store.ErrStale) && !outage(err):
			t.log.Error("a refresh on request failed", zap.String("grant", g.ID), zap.Error(err))
			return g
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return g
		}
		if seen, err := t.store.Get(ctx, g.ID); err == nil {
			g = seen
		} else if errors.Is(err, store.ErrNotFound) {
			gone := g.Clone()
			gone.State = store.Revoked
			return gone
		}
	}
	return g
}
