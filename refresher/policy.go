package refresher

import (
	"encoding/binary"
	"hash/fnv"
	"time"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// Policy says when a grant's next action is due. It is a pure function of the grant.
type Policy struct {
	AccessToken  config.Margin
	RefreshToken config.Margin
	// Brokers are the policies of single broker types, in any case.
	Brokers map[string]config.BrokerPolicy
	// ClockSkew is by how much clocks may differ, Lead what a try takes until it is stored.
	ClockSkew, Lead time.Duration
}

// NewPolicy returns the policy of a configuration.
func NewPolicy(c config.Config) Policy {
	return Policy{
		AccessToken: c.Refresh.AccessToken, RefreshToken: c.Refresh.RefreshToken, Brokers: c.Refresh.Brokers,
		ClockSkew: c.Worker.ClockSkew, Lead: c.Mesh.Timeout + c.MongoDB.Timeout,
	}
}

// LatestAttempt is when a try has to begin at the latest to bring the next access token before
// the present one is no longer handed out. Nil: at any time, since there is no access
// token or its end is not known.
func (p Policy) LatestAttempt(g *store.Grant) *time.Time {
	return p.latestAttempt(g.Access)
}

func (p Policy) latestAttempt(access *store.Lifetime) *time.Time {
	until := access.ServedUntil(p.ClockSkew)
	if until == nil {
		return nil
	}
	return new(until.Add(-access.AtMostTenth(p.Lead)))
}

// EndsBefore reports whether the access token may end before a try that begins at a time
// has brought the next one.
func (p Policy) EndsBefore(g *store.Grant, try time.Time) bool {
	last := p.LatestAttempt(g)
	return g.Access == nil || last != nil && try.After(*last)
}

// Next returns the next action of a grant that is not being retried, or nil when nothing
// will ever be due. Every worker, at any time, derives the same from the same grant.
func (p Policy) Next(g *store.Grant) *store.Due {
	switch {
	case g.State == store.MustAct, g.State == store.Active && g.Refresh == nil:
		return p.untilTheEnd(g)
	case g.State == store.Active:
		refresh, renew := p.refreshAt(g), p.RenewAt(g)
		if alive := p.keepAliveAt(g); alive != nil && (refresh == nil || alive.Before(*refresh)) {
			refresh = alive
		}
		if renew != nil && (refresh == nil || renew.Before(*refresh)) {
			return due(*renew, store.Renew)
		}
		if refresh != nil {
			return due(*refresh, store.Refresh)
		}
	}
	return nil
}

func due(at time.Time, action store.Action) *store.Due {
	return &store.Due{At: store.Milli(at), Action: action}
}

// untilTheEnd is for a grant that nothing will renew: a warning ahead of the end, unless
// that was announced, then the end of its newest access tokens, and of those of other
// accounts if they live longer.
func (p Policy) untilTheEnd(g *store.Grant) *store.Due {
	end := g.Access
	if end == nil || end.EndAnnounced {
		end = g.LastAccess()
	}
	if end == nil {
		end = g.Refresh
	}
	if end == nil || end.ExpiresAt == nil {
		if g.MFA != nil && g.Access == nil { // nothing is served, and nothing follows it
			return due(g.MFA.Until, store.Expire)
		}
		return nil
	}
	if g.Warned == "" && g.State == store.Active {
		if warn := p.before(g, end, p.margins(g).AccessToken, p.reserve(end)); warn != nil {
			return due(*warn, store.Warn)
		}
	}
	return due(*end.ExpiresAt, store.Expire)
}

// refreshAt is when the access token is to be refreshed; nil: never.
func (p Policy) refreshAt(g *store.Grant) *time.Time {
	if g.Access == nil {
		return &g.Refresh.Since // nothing to hand out yet: at once
	}
	at := p.before(g, g.Access, p.margins(g).AccessToken, p.reserve(g.Access))
	for i := range g.OlderAccess {
		if ask := p.requestAgainAt(g, &g.OlderAccess[i]); ask != nil && (at == nil || ask.Before(*at)) {
			at = ask
		}
	}
	return at
}

// keepAliveAt is when a grant is refreshed so that its refresh token does not die from
// disuse; nil: never. It is spread over the last tenth of the time between two refreshes.
func (p Policy) keepAliveAt(g *store.Grant) *time.Time {
	alive := p.margins(g).KeepAlive
	if alive == 0 || g.Access == nil || g.Refresh == nil || g.State != store.Active {
		return nil
	}
	early := time.Duration(float64(alive) / 10 * spread(g.ID, g.Version))
	return new(g.Access.Since.Add(alive - early))
}

// keepsAlive returns the shortest time for which some broker's tokens are kept alive.
func (p Policy) keepsAlive() (least time.Duration, some bool) {
	for _, b := range p.Brokers {
		if b.KeepAlive > 0 && (!some || b.KeepAlive < least) {
			least, some = b.KeepAlive, true
		}
	}
	return least, some
}

// reserve is how long before its end an access token is refreshed at the latest.
func (p Policy) reserve(life *store.Lifetime) time.Duration {
	return life.AtMostTenth(p.ClockSkew) + life.AtMostTenth(p.Lead)
}

// RenewAt is when the refresh token itself is to be renewed; nil: never. After a request
// that brought none, half of the remaining lifetime passes before the next, at least a
// minute. Past an assumed end the gaps grow again in the same way.
func (p Policy) RenewAt(g *store.Grant) *time.Time {
	if g.Refresh == nil || g.Refresh.ExpiresAt == nil {
		return nil
	}
	at := p.before(g, g.Refresh, p.margins(g).RefreshToken, 0)
	if asked := g.Refresh.RequestedAt; asked != nil {
		wait := max(g.Refresh.ExpiresAt.Sub(*asked).Abs()/2, time.Minute)
		*at = asked.Add(wait)
	}
	*at = store.Milli(*at) // as it is scheduled
	return at
}

// RenewsAt reports whether a refresh at a time is to ask for a new refresh token. A
// renewal that has come due may be early by our clock: without asking, it would be
// due at the same time again.
func (p Policy) RenewsAt(g *store.Grant, now time.Time) bool {
	at := p.RenewAt(g)
	return at != nil && !now.Add(p.ClockSkew).Before(*at) && (!now.Before(*at) || g.Due != nil && g.Due.Action == store.Renew)
}

// WarnOfRefreshToken is when the coming end of a refresh token is announced: once a
// renewal was requested within its margin and not given, or half of that margin has
// passed without a request. Nil: never, since no end is stated.
func (p Policy) WarnOfRefreshToken(g *store.Grant) *time.Time {
	if g.Refresh == nil || g.Refresh.ExpiresAt == nil || g.Refresh.Assumed {
		return nil
	}
	margin := p.margins(g).RefreshToken
	margin.Jitter = 0 // it differs from version to version, and at most doubles the margin
	at := p.before(g, g.Refresh, margin, 0)
	ahead := g.Refresh.ExpiresAt.Sub(*at)
	if asked := g.Refresh.RequestedAt; asked != nil && !asked.Before(at.Add(-ahead)) {
		return asked
	}
	return new(at.Add(ahead / 2))
}

type margins struct {
	AccessToken, RefreshToken config.Margin
	KeepAlive                 time.Duration
}

func (p Policy) margins(g *store.Grant) margins {
	m := margins{AccessToken: p.AccessToken, RefreshToken: p.RefreshToken}
	for name, b := range p.Brokers {
		if !events.SameBroker(name, g.BrokerType) {
			continue
		}
		if b.AccessToken != nil {
			m.AccessToken = *b.AccessToken
		}
		if b.RefreshToken != nil {
			m.RefreshToken = *b.RefreshToken
		}
		m.KeepAlive = b.KeepAlive
	}
	return m
}

// before is a moment ahead of the end of a lifetime, within the lifetime: the margin is a share
// of the lifetime within bounds, at most half of it, longer by up to the jitter's share of
// the margin, and no shorter than least.
func (p Policy) before(g *store.Grant, life *store.Lifetime, m config.Margin, least time.Duration) *time.Time {
	if life.ExpiresAt == nil {
		return nil
	}
	whole := max(life.ExpiresAt.Sub(life.Since), 0)
	margin := time.Duration(float64(whole) * m.Share)
	margin = min(max(margin, m.Min), m.Max, whole/2)
	early := margin + time.Duration(float64(margin)*m.Jitter*spread(g.ID, g.Version))
	return new(life.ExpiresAt.Add(-min(max(early, least), whole)))
}

// spread is a number in [0, 1), random over grants and versions, and the same for one.
func spread(grantID string, version int64) float64 {
	h := fnv.New64a()
	h.Write([]byte(grantID))
	var v [8]byte
	binary.BigEndian.PutUint64(v[:], uint64(version))
	h.Write(v[:])
	x := h.Sum64()
	// FNV leaves the last bytes badly mixed in the high bits; one round of
	// splitmix64's finalizer spreads them.
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return float64(x>>11) / (1 << 53)
}
