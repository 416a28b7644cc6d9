package bench

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
)

func TestUsersAreReadAgainAndAgain(t *testing.T) {
	b := &run{Options: Options{Warm: 10, Callers: 3}, cfg: config.Config{Tokens: config.Tokens{CacheAge: 4 * time.Millisecond}}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	seen, total := map[string]int{}, 0
	require.NoError(t, b.reads(ctx, func(user string) error {
		mu.Lock()
		defer mu.Unlock()
		seen[user]++
		if total++; total == 3*b.Warm {
			cancel()
		}
		return nil
	}))
	require.Len(t, seen, b.Warm)
	for user, n := range seen {
		require.Equal(t, 3, n, user)
	}

	away := errors.New("away")
	require.ErrorIs(t, b.reads(t.Context(), func(string) error { return away }), away)
}
