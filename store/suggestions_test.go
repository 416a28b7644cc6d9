package store_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store"
)

func TestWhatSomebodyTypesIsFound(t *testing.T) {
	t.Parallel()
	s := open(t)
	for i, g := range []struct {
		user, broker string
		state        store.State
	}{
		{"alice", "coinbase", store.Active}, {"alice", "kraken", store.Active}, {"alan", "coinbase", store.Active}, {"bob", "gemini", store.Expired}, {"al日", "kraken", store.Active},
	} {
		grant := active(fmt.Sprintf("ab%d", i))
		grant.UserID, grant.BrokerType, grant.State = g.user, g.broker, g.state
		insert(t, s, grant)
	}
	users := func(with string, limit int) []string {
		found, err := s.UsersBeginning(t.Context(), with, limit)
		require.NoError(t, err)
		return found
	}
	require.Equal(t, []string{"alan", "alice", "al日", "bob"}, users("", 9))
	require.Equal(t, []string{"alan", "alice", "al日"}, users("al", 9))
	require.Equal(t, []string{"alan", "alice"}, users("al", 2))
	require.Empty(t, users("c", 9))
	brokers, err := s.BrokersBeginning(t.Context(), "", 9)
	require.NoError(t, err)
	require.Equal(t, []string{"coinbase", "kraken"}, brokers)
	brokers, err = s.BrokersBeginning(t.Context(), "k", 9)
	require.NoError(t, err)
	require.Equal(t, []string{"kraken"}, brokers)

	grants, err := s.GrantsBeginning(t.Context(), "ab", 3)
	require.NoError(t, err)
	require.Equal(t, []string{"ab0", "ab1", "ab2"}, ids(grants))
	require.Equal(t, "alice", grants[0].UserID)
	require.Equal(t, store.Active, grants[0].State)
	require.Empty(t, grants[0].Sealed)
	grants, err = s.GrantsBeginning(t.Context(), "ab4", 3)
	require.NoError(t, err)
	require.Equal(t, []string{"ab4"}, ids(grants))
}
