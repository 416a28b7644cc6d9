package store_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/store"
)

func TestTheFirstToSaySoIsTheInstallation(t *testing.T) {
	o := options(t, enginestest.MongoDB(t))
	_, err := connect(t, o).Installation(t.Context())
	require.ErrorIs(t, err, store.ErrNotFound)
	var all sync.WaitGroup
	got := make([]store.Installation, 8)
	for i := range got {
		s := connect(t, o)
		all.Go(func() {
			var err error
			if got[i], err = s.ClaimInstallation(t.Context(), store.Installation{ID: fmt.Sprint("id", i), Prefix: fmt.Sprint("p", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, is := range got {
		require.Equal(t, got[0], is)
	}
	require.NoError(t, connect(t, o).Rename(t.Context(), "other"))
	is, err := connect(t, o).Installation(t.Context())
	require.NoError(t, err)
	require.Equal(t, store.Installation{ID: got[0].ID, Prefix: "other"}, is)
}

func TestStreamsAreSeenWhileTheyAreTheOnesRemembered(t *testing.T) {
	s := open(t)
	seen := func() bool {
		at, err := s.StreamsSeen(t.Context())
		require.NoError(t, err)
		return at.Equal(now)
	}
	require.NoError(t, s.RecordStreamsSeen(t.Context(), "a", now))
	require.False(t, seen())
	require.NoError(t, s.RememberStream(t.Context(), "a"))
	require.NoError(t, s.RecordStreamsSeen(t.Context(), "b", now))
	require.False(t, seen())
	require.NoError(t, s.RecordStreamsSeen(t.Context(), "a", now))
	require.True(t, seen())
	require.NoError(t, s.RecordStreamsSeen(t.Context(), "a", now.Add(-1)))
	require.True(t, seen())
}
