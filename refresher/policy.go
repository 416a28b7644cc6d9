package refresher

import (
	"encoding/binary"
	"hash/fnv"
	"time"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/store"
)

// Policy says when a grant's next action is due. It is a pure function of the
// grant; the loop that obeys it stands elsewhere.
type Policy struct {
	AccessToken  config.Margin
	RefreshToken config.Margin
	Brokers      map[string]config.BrokerPolicy
}

// Next returns the next action of a grant that is not in the middle of
// retries, or nil when nothing will ever be due. The result depends on nothing
// but the grant, so that every worker, at any time, derives the same.
func (p Policy) Next(g *store.Grant) *store.Due {
	switch {
	case g.State == store.MustAct, g.State == store.Active && g.Refresh == nil:
		return p.untilTheEnd(g)
	case g.State == store.Active:
		refresh, renew := p.refreshAt(g), p.RenewAt(g)
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

// untilTheEnd is for a grant that nothing will renew: a warning ahead of the
// end, unless its user was told already, then the end.
func (p Policy) untilTheEnd(g *store.Grant) *store.Due {
	end := g.Access
	if end == nil {
		end = g.Refresh
	}
	if end == nil || end.ExpiresAt == nil {
		return nil
	}
	if g.Warned == "" && g.State == store.Active {
		if warn := p.before(g, end, p.margins(g).AccessToken); warn != nil {
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
	return p.before(g, g.Access, p.margins(g).AccessToken)
}

// RenewAt is when the refresh token itself is to be renewed; nil: never. After
// a request that brought none, half of the remaining life passes before the
// next, at least a minute. Past an end that was only assumed the gaps grow
// again in the same way.
func (p Policy) RenewAt(g *store.Grant) *time.Time {
	if g.Refresh == nil || g.Refresh.ExpiresAt == nil {
		return nil
	}
	if asked := g.Refresh.Asked; asked != nil {
		wait := max(g.Refresh.ExpiresAt.Sub(*asked).Abs()/2, time.Minute)
		at := asked.Add(wait)
		return &at
	}
	return p.before(g, g.Refresh, p.margins(g).RefreshToken)
}

type margins struct{ AccessToken, RefreshToken config.Margin }

func (p Policy) margins(g *store.Grant) margins {
	m := margins{p.AccessToken, p.RefreshToken}
	if b, ok := p.Brokers[g.BrokerType]; ok {
		if b.AccessToken != nil {
			m.AccessToken = *b.AccessToken
		}
		if b.RefreshToken != nil {
			m.RefreshToken = *b.RefreshToken
		}
	}
	return m
}

// before is a moment ahead of the end of a life: the margin is a share of the
// life within bounds, but never more than half of it; jitter makes it up to
// that share of the margin longer. The moment lies within the life.
func (p Policy) before(g *store.Grant, life *store.Life, m config.Margin) *time.Time {
	if life.ExpiresAt == nil {
		return nil
	}
	whole := max(life.ExpiresAt.Sub(life.Since), 0)
	margin := time.Duration(float64(whole) * m.Share)
	margin = min(max(margin, m.Min), m.Max, whole/2)
	early := margin + time.Duration(float64(margin)*m.Jitter*spread(g.ID, g.Version))
	at := life.ExpiresAt.Add(-min(early, whole))
	return &at
}

// spread is a number in [0, 1) that is as good as random over grants and
// versions, and always the same for one.
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
