package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

func TestAChainKnowsWhatIsAtHandAndWhatWasReplaced(t *testing.T) {
	var c *store.Chain
	require.Empty(t, c.Head())
	require.False(t, c.Has("a"))
	require.Empty(t, c.Fingerprints())

	c = (&store.Chain{Key: "k"}).WithCurrent("a", now, true)
	require.Equal(t, "a", c.Head())
	require.Nil(t, c.SpentLink("a"))
	c = c.WithCurrent("b", now.Add(time.Minute), false)
	require.Equal(t, "b", c.Head())
	require.Equal(t, now.Add(time.Minute), *c.SpentLink("a").Until)
	require.Equal(t, c, c.WithCurrent("b", now.Add(time.Hour), false), "nothing came")
	require.False(t, c.Has(""))

	gone := c.WithCurrent("", now.Add(time.Hour), false)
	require.Empty(t, gone.Head())
	require.Equal(t, now.Add(time.Hour), *gone.SpentLink("b").Until)
	require.Equal(t, gone, gone.WithCurrent("", now.Add(2*time.Hour), false))

	require.False(t, c.SpentLink("a").Abandoned)
	other := c.WithCurrent("of another login", now.Add(time.Hour), true).WithCurrent("c", now.Add(2*time.Hour), false)
	require.True(t, other.SpentLink("a").Abandoned)
	require.False(t, other.SpentLink("of another login").Abandoned)

	back := c.WithCurrent("a", now.Add(time.Hour), true)
	require.Equal(t, "a", back.Head())
	require.Equal(t, []string{"a", "b"}, back.Fingerprints())
}

func TestAChainIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &store.Chain{Key: "k"}
		var connected []string
		last, before := "", ""
		for i := range rapid.IntRange(1, 60).Draw(t, "tokens") {
			token, byUser := fmt.Sprint(i), rapid.Bool().Draw(t, "connected")
			c = c.WithCurrent(token, now.Add(time.Duration(i)*time.Second), byUser)
			if byUser {
				connected = append(connected, token)
			}
			before, last = last, token
		}
		require.Equal(t, last, c.Head())
		require.True(t, before == "" || c.SpentLink(before) != nil)
		slices.Reverse(connected)
		for _, token := range connected[:min(len(connected), 8)] {
			require.True(t, c.Has(token), token)
		}
		require.LessOrEqual(t, len(c.Links), 10)
	})
}

func TestTheChainOfAnEarlierReleaseIsMadeOfItsTokens(t *testing.T) {
	key, err := fingerprints(t, open(t)).Key(t.Context())
	require.NoError(t, err)
	origin, current := secret.New("first"), secret.New("second")
	g := active("g")
	g.Refresh.Since = now.Add(time.Hour)
	c := g.ChainFor(key, store.TokenSet{RefreshToken: current, Origin: store.OriginOf(origin)})
	require.Equal(t, key.Of(current), c.Head())
	require.Equal(t, now.Add(time.Hour), *c.SpentLink(key.Of(origin)).Until)
	require.True(t, c.SpentLink(key.Of(origin)).Connected)

	c = g.ChainFor(key, store.TokenSet{RefreshToken: origin, Origin: store.OriginOf(origin)})
	require.Equal(t, []store.Link{{Token: key.Of(origin), Connected: true, Owners: []string{store.Owner(g.UserID, g.BrokerType)}}}, c.Links)
	require.Empty(t, g.ChainFor(key, store.TokenSet{}).Links)

	g.Chain = c
	require.Same(t, c, g.ChainFor(key, store.TokenSet{RefreshToken: current}), "what is stored counts")
	g.Chain.Key = "of another key"
	require.Equal(t, key.Of(current), g.ChainFor(key, store.TokenSet{RefreshToken: current}).Head())
}

// Whoever connected with a token is known for as long as the token is, whatever
// becomes of the grant.
func TestAChainKnowsWhoConnectedWithAToken(t *testing.T) {
	prints := fingerprints(t, open(t))
	connected := func(user string) *store.Grant {
		g := active(user)
		g.UserID = user
		with, err := prints.Sealer(t.Context(), user)
		require.NoError(t, err)
		with.SealTo(g, store.TokenSet{RefreshToken: secret.New("first")}, now, true)
		return g
	}
	old, other := connected("old"), connected("new")
	first, both := old.Chain.Head(), []string{store.Owner("new", other.BrokerType), store.Owner("old", old.BrokerType)}
	require.Equal(t, both[1:], old.Chain.Links[0].Owners)

	refreshed := old.Chain.WithCurrent("second", now, false)
	shared := other.Chain.WithOwnersOf(refreshed)
	require.Equal(t, both, shared.Links[0].Owners)
	require.Equal(t, both[:1], other.Chain.Links[0].Owners, "another's chain changed")
	require.Equal(t, both, shared.WithCurrent("second", now, false).SpentLink(first).Owners)
	require.Equal(t, both, shared.WithCurrent("second", now, false).WithCurrent(first, now, false).Links[0].Owners)
	require.Equal(t, both, other.Chain.WithReplacedGrant(refreshed, now).Links[0].Owners)
	require.Equal(t, both[1:], (&store.Chain{Key: refreshed.Key}).WithReplacedGrant(refreshed, now).SpentLink(first).Owners)
	for i := range 20 {
		old.Chain.Links[0].Owners = []string{fmt.Sprint(i)}
		shared = shared.WithOwnersOf(old.Chain)
	}
	require.Len(t, shared.Links[0].Owners, 8)
	require.Equal(t, "19", shared.Links[0].Owners[7])
	require.Equal(t, store.Owner("u", "Coinbase"), store.Owner("u", "coinbase"))
	require.NotEqual(t, store.Owner("u", "coinbase"), store.Owner("u", "kraken"))
}
