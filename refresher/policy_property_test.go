package refresher_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

func margins(t *rapid.T, name string) config.Margin {
	least := rapid.Int64Range(0, int64(day)).Draw(t, name+" min")
	return config.Margin{
		Share:  rapid.Float64Range(0, 0.999).Draw(t, name+" share"),
		Min:    time.Duration(least),
		Max:    time.Duration(rapid.Int64Range(least, int64(30*day)).Draw(t, name+" max")),
		Jitter: rapid.Float64Range(0, 1).Draw(t, name+" jitter"),
	}
}

func lives(t *rapid.T, name string) *store.Lifetime {
	since := t0.Add(time.Duration(rapid.Int64Range(0, int64(365*day/time.Millisecond)).Draw(t, name+" since")) * time.Millisecond)
	switch rapid.IntRange(0, 5).Draw(t, name+" form") {
	case 0:
		return nil
	case 1:
		return endless(since)
	}
	return lasting(since, time.Duration(rapid.Int64Range(0, int64(365*day/time.Millisecond)).Draw(t, name+" life"))*time.Millisecond)
}

func anyGrant(t *rapid.T) *store.Grant {
	return newGrant(func(g *store.Grant) {
		g.ID = rapid.String().Draw(t, "id")
		g.Version = rapid.Int64().Draw(t, "version")
		g.State = rapid.SampledFrom([]store.State{store.Active, store.MustAct}).Draw(t, "state")
		g.Access, g.Refresh = lives(t, "access"), lives(t, "refresh")
	})
}

func within(life *store.Lifetime, at time.Time) bool {
	return life != nil && life.ExpiresAt != nil && !at.Before(life.Since) && !at.After(*life.ExpiresAt)
}

func TestNextLiesWithinTheLifeThatItIsAbout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := refresher.Policy{AccessToken: margins(t, "access"), RefreshToken: margins(t, "refresh")}
		g := anyGrant(t)
		next := p.Next(g)
		require.Equal(t, next, p.Next(g.Clone()), "the same at every call")
		if next == nil {
			require.False(t, g.State == store.Active && g.Access == nil && g.Refresh != nil, "a grant that has nothing to hand out is refreshed")
			require.False(t, g.Access != nil && g.Access.ExpiresAt != nil, "an access token that ends has something due")
			return
		}
		switch {
		case next.Action == store.Refresh && g.Access == nil:
			require.Equal(t, g.Refresh.Since, next.At)
		case next.Action == store.Renew:
			require.True(t, within(g.Refresh, next.At))
		case g.Access == nil:
			require.Equal(t, store.Expire, next.Action)
			require.True(t, within(g.Refresh, next.At))
		default:
			require.True(t, within(g.Access, next.At), "%s at %s", next.Action, next.At)
		}
	})
}

func TestTheMomentChangesWithTheVersion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, g := policy(), newGrant(func(g *store.Grant) { g.ID = rapid.String().Draw(t, "id") })
		moments := map[time.Time]bool{}
		for g.Version = range int64(20) {
			moments[p.Next(g).At] = true
		}
		require.Greater(t, len(moments), 15)
	})
}

func TestGrantsConnectedTogetherSpread(t *testing.T) {
	const grants, parts = 1000, 10
	p := policy()
	earliest := t0.Add(hour - 12*time.Minute - 12*time.Minute/5) // margin a fifth, of which a fifth is jitter
	part := 12 * time.Minute / 5 / parts
	var count [parts]int
	for i := range grants {
		next := p.Next(newGrant(func(g *store.Grant) { g.ID = store.GrantID(fmt.Sprint("user ", i), "coinbase", "account") }))
		at := next.At.Sub(earliest)
		require.GreaterOrEqual(t, at, time.Duration(0))
		count[min(int(at/part), parts-1)]++
	}
	for i, n := range count {
		require.InDelta(t, grants/parts, n, grants/parts/2, "part %d of %v", i, count)
	}
}

func FuzzNext(f *testing.F) {
	for _, life := range []int64{0, 1, -1, 3600, 1 << 33, -1 << 33, 100_000_000_000} {
		f.Add("grant", int64(1), life, life, 0.2, 0.2, int64(60), int64(1800))
		f.Add("grant", int64(2), life, int64(0), 0.999, 1.0, int64(0), int64(1<<33))
	}
	f.Fuzz(func(t *testing.T, id string, version, access, refresh int64, share, jitter float64, least, most int64) {
		const ages = 100_000_000_000 // seconds: beyond what a time.Duration holds
		if !(share >= 0 && share < 1 && jitter >= 0 && jitter <= 1 && least >= 0 && least <= most && most <= 1<<33) {
			t.Skip("refused by the configuration")
		}
		m := config.Margin{Share: share, Jitter: jitter, Min: time.Duration(least) * time.Second, Max: time.Duration(most) * time.Second}
		p := refresher.Policy{AccessToken: m, RefreshToken: m}
		end := func(seconds int64) *store.Lifetime {
			at := time.Unix(t0.Unix()+seconds%(ages+1), 0).UTC()
			return &store.Lifetime{Since: t0, ExpiresAt: &at}
		}
		for _, state := range []store.State{store.Active, store.MustAct} {
			g := newGrant(func(g *store.Grant) {
				g.ID, g.Version, g.State, g.Access, g.Refresh = id, version, state, end(access), end(refresh)
			})
			next := p.Next(g)
			inside := func(l *store.Lifetime) bool { return within(l, next.At) || next.At.Equal(*l.ExpiresAt) }
			require.True(t, inside(g.Access) || inside(g.Refresh), "%v for %v and %v", next, g.Access.ExpiresAt, g.Refresh.ExpiresAt)
			require.Equal(t, next, p.Next(g))
		}
	})
}
