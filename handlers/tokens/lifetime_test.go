package tokens

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/store"
)

// Whatever life callers wish for, and however often they ask: a token is refreshed
// for them only in the second half of its life, so that asking costs about two
// refreshes in the length of one life; and in that half a wish is granted.
func TestAskingForLifeIsNotRefreshing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
		life := time.Duration(rapid.SampledFrom([]int{1, 20, 60, 300, 3600, 86400, 30 * 86400}).Draw(t, "life")) * time.Second
		s := &Service{opts: Options{Config: config.Default().Tokens, ClockSkew: config.Default().Worker.ClockSkew, Now: func() time.Time { return clock }}}
		obtain := func() *store.Lifetime {
			end := clock.Add(life)
			return &store.Lifetime{Since: clock, ExpiresAt: &end, Assumed: rapid.Bool().Draw(t, "assumed")}
		}
		g := &store.Grant{State: store.Active, Access: obtain(), Refresh: &store.Lifetime{Since: clock}}
		refreshes, begun := 0, clock
		for range rapid.IntRange(10, 60).Draw(t, "requests") {
			wish := time.Duration(rapid.SampledFrom([]int64{0, 1, 60, 7200, 999_999, 3_153_600_000}).Draw(t, "wish")) * time.Second
			left := g.Access.ExpiresAt.Sub(clock)
			if !s.fresh(g, wish) {
				require.LessOrEqual(t, left, life/2, "refreshed with more left than half of what the next one brings")
				g.Access = obtain()
				refreshes++
			} else {
				require.Greater(t, left, min(wish, life/2), "a wish that could be granted")
			}
			clock = clock.Add(time.Duration(rapid.Int64Range(0, int64(life)/4).Draw(t, "pause")))
		}
		require.LessOrEqual(t, refreshes, int(2*clock.Sub(begun)/life)+1)
	})
}

func TestTokensWithoutAKnownEndAreNotRefreshedForAWish(t *testing.T) {
	now := time.Now()
	s := &Service{opts: Options{Now: func() time.Time { return now }}}
	require.True(t, s.fresh(&store.Grant{State: store.Active, Access: &store.Lifetime{Since: now}, Refresh: &store.Lifetime{Since: now}}, 24*time.Hour))
	require.False(t, s.fresh(&store.Grant{State: store.Active, Refresh: &store.Lifetime{Since: now}}, 0), "nothing to give yet")
}
