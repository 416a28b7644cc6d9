package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store"
)

func TestGrantsAreListedPageByPage(t *testing.T) {
	t.Parallel()
	s := open(t)
	for i := range 9 {
		g := active(fmt.Sprintf("g%d", i))
		g.Due.At = now.Add(time.Duration(9-i/2) * time.Minute) // pairs at one moment
		if i%3 == 0 {
			g.State, g.BrokerType = store.MustAct, "vanguard"
		}
		if i == 8 {
			g.Due = nil
		}
		insert(t, s, g)
	}
	pages := func(l store.Listing) (all [][]string) {
		for {
			page, err := s.List(t.Context(), l)
			require.NoError(t, err)
			for _, g := range page {
				require.Empty(t, g.Sealed, "tokens were read")
			}
			all = append(all, ids(page))
			if len(page) < l.Limit {
				return all
			}
			l.After = l.CursorOf(page[len(page)-1])
		}
	}
	require.Equal(t, [][]string{{"g0", "g1", "g2", "g3"}, {"g4", "g5", "g6", "g7"}, {"g8"}}, pages(store.Listing{Limit: 4}))
	require.Equal(t, [][]string{{"g0", "g3"}, {"g6"}}, pages(store.Listing{State: store.MustAct, Limit: 2}))
	require.Equal(t, [][]string{{"g0", "g3", "g6"}}, pages(store.Listing{Broker: "vanguard", Limit: 9}))
	require.Equal(t, [][]string{{}}, pages(store.Listing{Broker: "nobody's", Limit: 9}))
	due := store.Listing{DueBefore: now.Add(9 * time.Minute), Limit: 3}
	require.Equal(t, [][]string{{"g6", "g7", "g4"}, {"g5", "g2", "g3"}, {}}, pages(due))
	due.State = store.Active
	require.Equal(t, [][]string{{"g7", "g4", "g5"}, {"g2"}}, pages(due))

	due.After = "g5"
	_, err := s.List(t.Context(), due)
	require.ErrorIs(t, err, store.ErrCursor)
}
