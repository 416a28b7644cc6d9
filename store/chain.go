package store

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store/envelope"
)

// Chain lists the refresh tokens of a grant by their fingerprints. Each was replaced by
// the one before it in Links, or by a connect.
type Chain struct {
	// Key is the id of the FingerprintKey.
	Key string `bson:"key"`
	// Links begin with the current token, if there is one, and are sorted newest
	// first.
	Links []Link `bson:"links"`
}

// Link is one refresh token of a Chain.
type Link struct {
	// Token is the fingerprint.
	Token string `bson:"token"`
	// Until is when the token was replaced. Nil: it is current.
	Until *time.Time `bson:"until,omitempty"`
	// Connected: a connect brought the token; else a refresh.
	Connected bool `bson:"connected,omitempty"`
	// Rotated: a refresh replaced the token, so that the institution no longer
	// accepts it; else a connect.
	Rotated bool `bson:"rotated,omitempty"`
	// Abandoned: a connect replaced a successor of the token. The current token is of
	// another login.
	Abandoned bool `bson:"abandoned,omitempty"`
	// Owners are the owners who connected with the token, as Owner returns them, oldest
	// first. Earlier releases did not write them.
	Owners []string `bson:"by,omitempty"`
}

// Owner is a hash that stands for a user at a broker.
func Owner(userID, brokerType string) string {
	return hashID("owner", userID, events.BrokerKey(brokerType))
}

// maxOwners bounds the owners of a link; the last ones stay.
const maxOwners = 8

func (l Link) withOwners(owners []string) Link {
	own := slices.Clone(l.Owners)
	for _, o := range owners {
		if !slices.Contains(own, o) {
			own = append(own, o)
		}
	}
	l.Owners = own[max(0, len(own)-maxOwners):]
	return l
}

// maxConnected bounds the replaced tokens that connects brought: a publisher may publish
// each of them again. Of those that refreshes brought one stays.
const maxConnected = 8

// Head returns the fingerprint of the current refresh token; empty: there is none.
func (c *Chain) Head() string {
	if c == nil || len(c.Links) == 0 || c.Links[0].Until != nil {
		return ""
	}
	return c.Links[0].Token
}

// SpentLink returns the link of a refresh token that was replaced, or nil.
func (c *Chain) SpentLink(fingerprint string) *Link {
	if c == nil || fingerprint == "" {
		return nil
	}
	i := slices.IndexFunc(c.Links, func(l Link) bool { return l.Until != nil && l.Token == fingerprint })
	if i < 0 {
		return nil
	}
	return &c.Links[i]
}

func (c *Chain) contains(fingerprint string) bool {
	return c != nil && slices.ContainsFunc(c.Links, func(l Link) bool { return l.Token == fingerprint })
}

// Has reports whether the grant has or had a refresh token.
func (c *Chain) Has(fingerprint string) bool {
	return fingerprint != "" && c.contains(fingerprint)
}

// Fingerprints returns the fingerprints of all links.
func (c *Chain) Fingerprints() []string {
	if c == nil {
		return nil
	}
	all := make([]string, len(c.Links))
	for i, l := range c.Links {
		all[i] = l.Token
	}
	return all
}

// WithoutCurrent returns the chain without the current refresh token.
func (c *Chain) WithoutCurrent() *Chain {
	return &Chain{Key: c.Key, Links: slices.DeleteFunc(slices.Clone(c.Links), func(l Link) bool { return l.Until == nil })}
}

// WithCurrent returns the chain with a refresh token that is current since a time; empty: none
// is. connected: a connect brought it.
func (c *Chain) WithCurrent(fingerprint string, at time.Time, connected bool) *Chain {
	if c.Head() == fingerprint {
		next := &Chain{Key: c.Key, Links: slices.Clone(c.Links)}
		if fingerprint != "" {
			next.Links[0].Connected = next.Links[0].Connected || connected
		}
		return next
	}
	next := &Chain{Key: c.Key}
	if fingerprint != "" {
		head := Link{Token: fingerprint, Connected: connected}
		if before := c.SpentLink(fingerprint); before != nil {
			head.Owners = before.Owners
		}
		next.Links = append(next.Links, head)
	}
	at = Milli(at)
	for _, l := range c.Links {
		if l.Token == fingerprint {
			continue
		}
		if l.Until == nil {
			l.Until, l.Rotated = &at, !connected
		} else {
			l.Abandoned = l.Abandoned || connected
		}
		next.Links = append(next.Links, l)
	}
	return next.bounded()
}

// WithReplacedGrant returns the chain with the links of a grant that it replaces at a time, so
// that their tokens stay known as spent.
func (c *Chain) WithReplacedGrant(from *Chain, at time.Time) *Chain {
	if from == nil || c != nil && c.Key != from.Key {
		return c
	}
	next := &Chain{Key: from.Key}
	if c != nil {
		next.Links = c.WithOwnersOf(from).Links
	}
	at = Milli(at)
	for _, l := range from.Links {
		if next.contains(l.Token) {
			continue
		}
		if l.Until == nil {
			l.Until = &at
		}
		l.Abandoned = true
		next.Links = append(next.Links, l)
	}
	return next.bounded()
}

// WithSpentOf returns the chain with the replaced tokens of a grant that is deleted.
func (c *Chain) WithSpentOf(from *Chain) *Chain {
	if from == nil {
		return c
	}
	return c.WithReplacedGrant(from.WithoutCurrent(), time.Time{}) // each has its time
}

// WithOwnersOf returns the chain with the owners that another chain has for its tokens.
func (c *Chain) WithOwnersOf(with *Chain) *Chain {
	if c == nil || with == nil || c.Key != with.Key {
		return c
	}
	next := &Chain{Key: c.Key, Links: slices.Clone(c.Links)}
	for i, l := range next.Links {
		for _, other := range with.Links {
			if other.Token == l.Token && len(other.Owners) > 0 {
				next.Links[i] = l.withOwners(other.Owners)
			}
		}
	}
	return next
}

// withOwnerOf returns the chain with the grant's owner as one who connected with the
// current token.
func (c *Chain) withOwnerOf(g *Grant) *Chain {
	if c.Head() == "" {
		return c
	}
	next := &Chain{Key: c.Key, Links: slices.Clone(c.Links)}
	next.Links[0] = next.Links[0].withOwners([]string{Owner(g.UserID, g.BrokerType)})
	return next
}

func (c *Chain) bounded() *Chain {
	fromConnects, fromRefreshes := 0, 0
	c.Links = slices.DeleteFunc(c.Links, func(l Link) bool {
		switch {
		case l.Until == nil:
			return false
		case l.Connected:
			fromConnects++
			return fromConnects > maxConnected
		}
		fromRefreshes++
		return fromRefreshes > 1
	})
	return c
}

// FingerprintKey makes fingerprints of refresh tokens, the same for all grants. Nobody
// can test a guess without the key.
type FingerprintKey struct {
	ID  string
	key secret.Text
}

// Of returns the fingerprint of a refresh token; empty: there is no token.
func (k FingerprintKey) Of(refreshToken secret.Text) string {
	return k.ofOrigin(OriginOf(refreshToken))
}

// ofOrigin makes the fingerprint of a token of which only OriginOf is known.
func (k FingerprintKey) ofOrigin(origin string) string {
	if origin == "" {
		return ""
	}
	mac := hmac.New(sha256.New, []byte(k.key.Reveal()))
	mac.Write([]byte(origin))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:fingerprintSize])
}

// fingerprintSize is large enough to rule out collisions.
const fingerprintSize = 16

// ChainFor returns the chain of a grant with a key's fingerprints. If the document has
// none, since an earlier release wrote it, or one of another key, ChainFor derives it from
// the token set.
func (g *Grant) ChainFor(k FingerprintKey, t TokenSet) *Chain {
	if g.Chain != nil && g.Chain.Key == k.ID {
		return g.Chain
	}
	since := g.ConnectedAt
	if g.Refresh != nil {
		since = g.Refresh.Since
	}
	origin, current := k.ofOrigin(t.Origin), k.Of(t.RefreshToken)
	c := (&Chain{Key: k.ID}).WithCurrent(origin, g.ConnectedAt, true).withOwnerOf(g)
	return c.WithCurrent(current, since, origin == current)
}

// TokenSealer seals token sets and makes their fingerprints. It can't fail.
type TokenSealer struct {
	envelope.Sealer
	Key FingerprintKey
}

// SealTo seals a token set to a grant of the present version, and updates what the
// document says of the set: the chain, the version of the access tokens, and whether
// accounts are to be split off. at is when a new refresh token came; connected: with a
// connect.
func (s TokenSealer) SealTo(g *Grant, t TokenSet, at time.Time, connected bool) {
	g.Sealed = SealTokens(s.Sealer, t, g.Binding())
	g.Chain = g.ChainFor(s.Key, t).WithCurrent(s.Key.Of(t.RefreshToken), at, connected)
	if connected {
		g.Chain = g.Chain.withOwnerOf(g)
	}
	if g.Access != nil && g.Access.Version == 0 {
		access := *g.Access // which a candidate may share
		access.Version = g.Version
		g.Access = &access
	}
	if g.HasSeparateRefreshTokens = t.hasSeparateRefreshTokens(); g.HasSeparateRefreshTokens {
		due := Milli(at) // as soon as can be
		g.AccountsDue = &due
	}
}
