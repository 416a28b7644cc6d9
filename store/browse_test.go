package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store"
)

func TestGrantsAreBrowsed(t *testing.T) {
	t.Parallel()
	s := open(t)
	for i := range 9 {
		g := active(fmt.Sprintf("g%d", i))
		g.Due.At = now.Add(time.Duration(9-i/2) * time.Minute) // pairs at one moment
		g.BrokerType = []string{"coinbase", "a,b", "CoinBase"}[i%3]
		if i%4 == 0 {
			g.State, g.Due = store.MustAct, nil
		}
		if i < 6 {
			g.Failing = &store.Failing{At: now.Add(time.Duration(i/2) * time.Minute), Why: "transient"}
		}
		if i == 5 {
			g.Failing.Type = "outage"
		}
		insert(t, s, g)
	}
	pages := func(sel store.Selection) (all [][]string, read int) {
		t.Helper()
		if sel.Reads == 0 {
			sel.Reads = 100
		}
		for {
			page, err := s.Browse(t.Context(), sel)
			require.NoError(t, err)
			for _, g := range page.Grants {
				require.Empty(t, g.Sealed, "tokens were read")
			}
			all = append(all, ids(page.Grants))
			read += page.Read
			if sel.After = page.Next; page.Next == "" {
				return all, read
			}
		}
	}
	for name, c := range map[string]struct {
		sel  store.Selection
		want [][]string
		read int
	}{
		"all, by state and broker":      {store.Selection{Limit: 4}, [][]string{{"g2", "g5", "g1", "g7"}, {"g3", "g6", "g8", "g4"}, {"g0"}}, 9},
		"a state":                       {store.Selection{State: store.MustAct, Limit: 2}, [][]string{{"g8", "g4"}, {"g0"}}, 3},
		"a broker, in any case":         {store.Selection{Broker: "COINBASE", Limit: 3}, [][]string{{"g2", "g5", "g3"}, {"g6", "g8", "g0"}}, 6},
		"a broker with a comma":         {store.Selection{Broker: "A,B", Limit: 2}, [][]string{{"g1", "g7"}, {"g4"}}, 3},
		"both":                          {store.Selection{State: store.Active, Broker: "coinbase", Limit: 9}, [][]string{{"g2", "g5", "g3", "g6"}}, 4},
		"nobody's":                      {store.Selection{Broker: "other", Limit: 9}, [][]string{{}}, 0},
		"by due":                        {store.Selection{Order: store.InOrderOfDue, Limit: 4}, [][]string{{"g6", "g7", "g5", "g2"}, {"g3", "g1"}}, 6},
		"overdue":                       {store.Selection{Order: store.InOrderOfDue, DueBefore: now.Add(8 * time.Minute), Limit: 4}, [][]string{{"g6", "g7", "g5"}}, 3},
		"by due, of a broker":           {store.Selection{Order: store.InOrderOfDue, Broker: "a,b", Limit: 4}, [][]string{{"g7", "g1"}}, 6},
		"by failure":                    {store.Selection{Order: store.InOrderOfFailure, Limit: 4}, [][]string{{"g5", "g4", "g3", "g2"}, {"g1", "g0"}}, 6},
		"by failure, with an error":     {store.Selection{Order: store.InOrderOfFailure, Error: "outage", Limit: 4}, [][]string{{"g5"}}, 6},
		"an error":                      {store.Selection{Error: "transient", State: store.MustAct, Limit: 4}, [][]string{{"g4", "g0"}}, 3},
		"few of many, in bounded reads": {store.Selection{Order: store.InOrderOfFailure, State: store.MustAct, Limit: 4, Reads: 2}, [][]string{{"g4"}, {}, {"g0"}}, 6},
	} {
		got, read := pages(c.sel)
		require.Equal(t, c.want, got, name)
		require.Equal(t, c.read, read, name)
	}
	for _, bad := range []store.Selection{{After: "g5"}, {Order: store.InOrderOfDue, After: "x,g5"}, {Order: "other"}} {
		bad.Limit, bad.Reads = 1, 1
		_, err := s.Browse(t.Context(), bad)
		require.ErrorIs(t, err, store.ErrCursor)
	}

	failing, more, err := s.TallyFailing(t.Context(), 100)
	require.NoError(t, err)
	require.False(t, more)
	require.Equal(t, []store.FailingTally{
		{Broker: "coinbase", Grants: 3, Latest: now.Add(2 * time.Minute), Errors: map[string]int64{"transient": 2, "outage": 1}},
		{Broker: "a,b", Grants: 1, Latest: now, Errors: map[string]int64{"transient": 1}},
	}, failing)
	failing, more, err = s.TallyFailing(t.Context(), 2)
	require.NoError(t, err)
	require.True(t, more)
	require.Len(t, failing, 1)
}
