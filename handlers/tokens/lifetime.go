package tokens

import (
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

func (t *Service) minTTL(in events.TokenRequest) time.Duration {
	if in.MinTTLSeconds != nil {
		return time.Duration(*in.MinTTLSeconds) * time.Second
	}
	return t.opts.Config.MinTTL
}

// attainable bounds the requested lifetime by half of the lifetime that the token was issued
// with, about which its successor has too. So requests with a large wish do not replace
// each other's token within half of its lifetime.
func attainable(minTTL time.Duration, l *store.Lifetime) time.Duration {
	if l == nil || l.ExpiresAt == nil {
		return minTTL
	}
	return min(minTTL, max(l.ExpiresAt.Sub(l.Since), 0)/2)
}

// fresh reports whether a refresh would gain nothing: enough lifetime is left, or the grant
// can't be refreshed.
func (t *Service) fresh(g *store.Grant, minTTL time.Duration) bool {
	now := t.opts.Now()
	if g.State != store.Active || refresher.RefreshTokenExpired(g, now) {
		return true
	}
	return !g.Access.Expired(now.Add(attainable(minTTL, g.Access))) && !t.expiredAt(now, g.Access)
}

// expired reports whether a token may have expired by another machine's clock.
func (t *Service) expired(l *store.Lifetime) bool { return t.expiredAt(t.opts.Now(), l) }

func (t *Service) expiredAt(now time.Time, l *store.Lifetime) bool {
	until := l.ServedUntil(t.opts.ClockSkew)
	return l == nil || until != nil && !now.Before(*until)
}

// obtained is when an account's token was obtained; nil: unknown, since earlier releases
// stored only the expiry of an older token.
func obtained(g *store.Grant, a store.Account) *time.Time {
	if life := g.AccessOf(a); life != nil && (g.Newest(a) || life.Version != 0) {
		return &life.Since
	}
	return nil
}
