package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store"
)

func TestOverview(t *testing.T) {
	s := open(t)
	tallies, err := s.Tallies(t.Context())
	require.NoError(t, err)
	require.Empty(t, tallies)

	kraken := dueIn("late", -time.Hour, "")
	kraken.BrokerType = "kraken"
	ended := active("ended")
	ended.State, ended.Due = store.Expired, nil
	insert(t, s, kraken, ended, dueIn("soon", 0, ""), dueIn("later", 30*time.Minute, ""), dueIn("at the end", time.Hour, ""))
	tallies, err = s.Tallies(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, []store.Tally{{store.Active, "kraken", 1}, {store.Active, "coinbase", 3}, {store.Expired, "coinbase", 1}}, tallies)

	for _, c := range []struct {
		from, before time.Time
		limit, want  int64
	}{
		{now, now.Add(time.Hour), 10, 2},
		{now, now.Add(time.Hour), 1, 1},
		{time.Time{}, now, 10, 1},
		{now.Add(2 * time.Hour), now.Add(3 * time.Hour), 10, 0},
	} {
		n, err := s.CountDue(t.Context(), c.from, c.before, c.limit)
		require.NoError(t, err)
		require.Equal(t, c.want, n)
	}
	first, err := s.DueBefore(t.Context(), now.Add(time.Hour), 2)
	require.NoError(t, err)
	require.Equal(t, []string{"late", "soon"}, ids(first))
}

func TestOverdueByBroker(t *testing.T) {
	s := open(t)
	tallies, err := s.TallyOverdue(t.Context(), now, 10)
	require.NoError(t, err)
	require.Empty(t, tallies)

	kraken := dueIn("longest", -time.Hour, "")
	kraken.BrokerType = "Kraken"
	insert(t, s, kraken, dueIn("late", -2*time.Minute, ""), dueIn("later", -time.Minute, ""), dueIn("now", 0, ""), dueIn("soon", time.Minute, ""))
	tallies, err = s.TallyOverdue(t.Context(), now, 10)
	require.NoError(t, err)
	require.Equal(t, []store.OverdueTally{{"coinbase", 2, now.Add(-2 * time.Minute)}, {"kraken", 1, now.Add(-time.Hour)}}, tallies)

	tallies, err = s.TallyOverdue(t.Context(), now, 2)
	require.NoError(t, err)
	require.Equal(t, []store.OverdueTally{{"coinbase", 1, now.Add(-2 * time.Minute)}, {"kraken", 1, now.Add(-time.Hour)}}, tallies, "the longest overdue count first")
}
