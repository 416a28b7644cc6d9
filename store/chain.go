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

// Chain names the refresh tokens that a grant has had, by their fingerprints:
// each was replaced by the one before it in Links, or by a connect.
type Chain struct {
	// Key is the id of the FingerprintKey. Fingerprints of another key say
	// nothing.
	Key string `bson:"key"`
	// Links begin with the token at hand, if there is one. The others are the
	// newest first.
	Links []Link `bson:"links"`
}

// Link is one refresh token of a Chain.
type Link struct {
	// Token is the fingerprint.
	Token string `bson:"token"`
	// Until is when the token was replaced. Nil: it is at hand.
	Until *time.Time `bson:"until,omitempty"`
	// Connected: a connect brought it. A refresh brought all others.
	Connected bool `bson:"connected,omitempty"`
	// Rotated: a refresh replaced it, so that the institution takes it no more. A
	// connect replaced all others.
	Rotated bool `bson:"rotated,omitempty"`
	// Abandoned: a connect replaced what refreshes had made of it. The token at hand
	// is of another login.
	Abandoned bool `bson:"abandoned,omitempty"`
	// By are the owners who connected with it, by Owner, the first one first. Earlier
	// releases did not write them.
	By []string `bson:"by,omitempty"`
}

// Owner stands for a user at a broker. It is a hash, and names nobody.
func Owner(userID, brokerType string) string {
	return hashID("owner", userID, events.BrokerKey(brokerType))
}

// maxOwners bounds the owners of whom a link tells: the last ones.
const maxOwners = 8

// by returns the link with owners who connected with it.
func (l Link) by(owners []string) Link {
	own := slices.Clone(l.By)
	for _, o := range owners {
		if !slices.Contains(own, o) {
			own = append(own, o)
		}
	}
	l.By = own[max(0, len(own)-maxOwners):]
	return l
}

// A chain keeps the tokens that connects brought last, since a publisher may
// publish each of them again, and of the others the last one that was replaced.
const maxConnected = 8

// Head returns the fingerprint of the refresh token at hand; empty for none.
func (c *Chain) Head() string {
	if c == nil || len(c.Links) == 0 || c.Links[0].Until != nil {
		return ""
	}
	return c.Links[0].Token
}

// Spent returns the link of a refresh token that was replaced, or nil.
func (c *Chain) Spent(fingerprint string) *Link {
	if c == nil || fingerprint == "" {
		return nil
	}
	for i, l := range c.Links {
		if l.Until != nil && l.Token == fingerprint {
			return &c.Links[i]
		}
	}
	return nil
}

func (c *Chain) linked(fingerprint string) bool {
	return c != nil && slices.ContainsFunc(c.Links, func(l Link) bool { return l.Token == fingerprint })
}

// Has reports whether a refresh token is or was the grant's.
func (c *Chain) Has(fingerprint string) bool {
	return fingerprint != "" && c.linked(fingerprint)
}

// Fingerprints returns those of all links.
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

// Replaced returns the chain without the refresh token at hand.
func (c *Chain) Replaced() *Chain {
	return &Chain{Key: c.Key, Links: slices.DeleteFunc(slices.Clone(c.Links), func(l Link) bool { return l.Until == nil })}
}

// With returns the chain after a refresh token has come to hand at a time, empty
// for none. connected: a connect brought it.
func (c *Chain) With(fingerprint string, at time.Time, connected bool) *Chain {
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
		if before := c.Spent(fingerprint); before != nil {
			head.By = before.By
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

// Inheriting returns the chain with the links of a grant that it replaces at a time,
// so that their tokens stay known as spent.
func (c *Chain) Inheriting(from *Chain, at time.Time) *Chain {
	if from == nil || c != nil && c.Key != from.Key {
		return c
	}
	next := &Chain{Key: from.Key}
	if c != nil {
		next.Links = c.Sharing(from).Links
	}
	at = Milli(at)
	for _, l := range from.Links {
		if next.linked(l.Token) {
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

// Remembering returns the chain with the tokens that were replaced in another chain, of
// a grant that goes.
func (c *Chain) Remembering(from *Chain) *Chain {
	if from == nil {
		return c
	}
	return c.Inheriting(from.Replaced(), time.Time{}) // each has its time
}

// Sharing returns the chain with the owners who connected with its tokens as another
// chain knows them.
func (c *Chain) Sharing(with *Chain) *Chain {
	if c == nil || with == nil || c.Key != with.Key {
		return c
	}
	next := &Chain{Key: c.Key, Links: slices.Clone(c.Links)}
	for i, l := range next.Links {
		for _, other := range with.Links {
			if other.Token == l.Token && len(other.By) > 0 {
				next.Links[i] = l.by(other.By)
			}
		}
	}
	return next
}

// connectedBy returns the chain where an owner connected with the token at hand.
func (c *Chain) connectedBy(g *Grant) *Chain {
	if c.Head() == "" {
		return c
	}
	next := &Chain{Key: c.Key, Links: slices.Clone(c.Links)}
	next.Links[0] = next.Links[0].by([]string{Owner(g.UserID, g.BrokerType)})
	return next
}

// bounded returns the chain without the links for which there is no room.
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

// FingerprintKey makes fingerprints of refresh tokens. They are the same for all
// grants, and without the key nobody can tell whether a guess is right.
type FingerprintKey struct {
	ID  string
	key secret.Text
}

// Of returns the fingerprint of a refresh token; empty for none.
func (k FingerprintKey) Of(refreshToken secret.Text) string {
	return k.ofOrigin(OriginOf(refreshToken))
}

// ofOrigin makes a fingerprint of what is known of a token that is not known any
// more.
func (k FingerprintKey) ofOrigin(origin string) string {
	if origin == "" {
		return ""
	}
	mac := hmac.New(sha256.New, []byte(k.key.Reveal()))
	mac.Write([]byte(origin))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:fingerprintSize])
}

// fingerprintSize makes fingerprints of two tokens differ for all practical
// purposes, however many there are.
const fingerprintSize = 16

// Chained returns the chain of a grant by a key. Where the document has none, as
// earlier releases wrote it, or one of another key, it is made of what the token set tells.
func (g *Grant) Chained(k FingerprintKey, t TokenSet) *Chain {
	if g.Chain != nil && g.Chain.Key == k.ID {
		return g.Chain
	}
	since := g.ConnectedAt
	if g.Refresh != nil {
		since = g.Refresh.Since
	}
	origin := k.ofOrigin(t.Origin)
	c := (&Chain{Key: k.ID}).With(origin, g.ConnectedAt, true).connectedBy(g)
	return c.With(k.Of(t.RefreshToken), since, origin == k.Of(t.RefreshToken))
}

// TokenSealer seals token sets, and makes the fingerprints that go with them. It
// can't fail.
type TokenSealer struct {
	envelope.Sealer
	Key FingerprintKey
}

// SealTo seals a token set to a grant as it now is, and keeps up what the document tells
// of it: the chain, the version of the access tokens, and whether accounts are to be
// split off. at is when the refresh token came, if it is another than before; connected: with
// a connect.
func (s TokenSealer) SealTo(g *Grant, t TokenSet, at time.Time, connected bool) {
	g.Sealed = SealTokens(s.Sealer, t, g.Binding())
	g.Chain = g.Chained(s.Key, t).With(s.Key.Of(t.RefreshToken), at, connected)
	if connected {
		g.Chain = g.Chain.connectedBy(g)
	}
	if g.Access != nil && g.Access.Version == 0 {
		access := *g.Access // which a candidate may share
		access.Version = g.Version
		g.Access = &access
	}
	if g.Apart = t.apart(); g.Apart {
		due := Milli(at) // as soon as can be
		g.AccountsDue = &due
	}
}
