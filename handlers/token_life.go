package handlers

import (
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

func (t *TokenService) minTTL(in events.TokenRequest) time.Duration {
	if in.MinTTLSeconds != nil {
		return time.Duration(*in.MinTTLSeconds) * time.Second
	}
	return t.cfg.MinTTL
}

// attainable bounds a wish for life left by half of the life that a token had when
// it was obtained: the next one has about as much. So a token is refreshed for a
// request only if it has less left than its successor would bring, and no two
// requests with a large wish replace each other's token within half of its life.
func attainable(minTTL time.Duration, l *store.Life) time.Duration {
	if l == nil || l.ExpiresAt == nil {
		return minTTL
	}
	return min(minTTL, max(l.ExpiresAt.Sub(l.Since), 0)/2)
}

// fresh reports whether nothing would be gained by a refresh: enough life is
// left, or none can be had.
func (t *TokenService) fresh(g *store.Grant, minTTL time.Duration) bool {
	now := t.now()
	if g.State != store.Active || refresher.RefreshTokenOver(g, now) {
		return true
	}
	return !g.Access.Over(now.Add(attainable(minTTL, g.Access))) && !t.over(g.Access)
}

// over reports whether a token may have ended by the clock of somebody else.
func (t *TokenService) over(l *store.Life) bool {
	until := l.ServedUntil(t.skew)
	return l == nil || until != nil && !t.now().Before(*until)
}

// obtained is when an account's token was obtained; nil: that is not known, since an
// earlier release kept no more of an older token than its end.
func obtained(g *store.Grant, a store.Account) *time.Time {
	if life := g.AccessOf(a); life != nil && (g.Newest(a) || life.Version != 0) {
		return &life.Since
	}
	return nil
}
