package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store"
)

func TestScopeCovers(t *testing.T) {
	for scope, covers := range map[store.Scope][4]bool{
		{User: "u"}:                            {true, true, true, true},
		{User: "u", Broker: "b"}:               {true, true, false, false},
		{User: "u", Account: "a"}:              {true, false, true, false},
		{User: "u", Broker: "b", Account: "a"}: {true, false, false, false},
	} {
		got := [4]bool{scope.Covers("b", "a"), scope.Covers("b", "other"), scope.Covers("other", "a"), scope.Covers("other", "other")}
		require.Equal(t, covers, got, "%+v", scope)
	}
}

func TestRevokedByScope(t *testing.T) {
	accounts := []string{"a1", "a2"}
	for name, c := range map[string]struct {
		scope store.Scope
		want  []string // of the broker b1 of u; "" is the broker as a whole
	}{
		"user":              {store.Scope{User: "u"}, []string{"", "a1", "a2"}},
		"broker":            {store.Scope{User: "u", Broker: "b1"}, []string{"", "a1", "a2"}},
		"account":           {store.Scope{User: "u", Account: "a1"}, []string{"a1"}},
		"account of broker": {store.Scope{User: "u", Broker: "b1", Account: "a2"}, []string{"a2"}},
		"other user":        {store.Scope{User: "v"}, nil},
		"other broker":      {store.Scope{User: "u", Broker: "b2"}, nil},
		"other account":     {store.Scope{User: "u", Broker: "b1", Account: "a3"}, nil},
		"other's account":   {store.Scope{User: "u", Broker: "b2", Account: "a1"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			require.NoError(t, s.RecordRevocation(t.Context(), c.scope, now, now.Add(time.Hour)))
			want := map[string]time.Time{}
			for _, account := range c.want {
				want[account] = now
			}
			got, err := s.Revocations(t.Context(), "u", "b1", accounts)
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestTheLastDisconnectCounts(t *testing.T) {
	s := open(t)
	revoke := func(scope store.Scope, d time.Duration) {
		t.Helper()
		require.NoError(t, s.RecordRevocation(t.Context(), scope, now.Add(d), now.Add(d+24*time.Hour)))
	}
	user, account := store.Scope{User: "u"}, store.Scope{User: "u", Broker: "b", Account: "a"}
	revoke(user, 2*time.Hour)
	revoke(user, time.Hour) // late, and older
	revoke(account, 3*time.Hour)
	revoke(store.Scope{User: "u", Broker: "b"}, 0)
	got, err := s.Revocations(t.Context(), "u", "b", []string{"a", "other"})
	require.NoError(t, err)
	require.Equal(t, map[string]time.Time{"": now.Add(2 * time.Hour), "other": now.Add(2 * time.Hour), "a": now.Add(3 * time.Hour)}, got)
}

func TestRevocationsOfUnknownAccounts(t *testing.T) {
	s := open(t)
	require.NoError(t, s.RecordRevocation(t.Context(), store.Scope{User: "u", Broker: "b"}, now, now))
	got, err := s.Revocations(t.Context(), "u", "b", nil)
	require.NoError(t, err)
	require.Equal(t, map[string]time.Time{"": now}, got)
}

// Of a refresh token whose grant is gone it is known whether it is spent, for every user
// and under a hash of its fingerprint.
func TestTheFateOfARefreshTokenIsRemembered(t *testing.T) {
	s := open(t)
	fate := func(user, token string) store.TokenRecord {
		t.Helper()
		revoked, fate, err := s.RevocationsAndTokenRecord(t.Context(), user, "b", []string{"a"}, token)
		require.NoError(t, err)
		require.Empty(t, revoked)
		return fate
	}
	require.NoError(t, s.RecordSpent(t.Context(), "", now, now))
	require.NoError(t, s.RecordSpent(t.Context(), "spent", now, now.Add(time.Hour)))
	require.NoError(t, s.RecordAwaited(t.Context(), "awaited", now.Add(time.Minute)))
	require.NoError(t, s.RecordAwaited(t.Context(), "awaited", now))
	for _, user := range []string{"u", "v"} {
		require.Equal(t, store.TokenRecord{Spent: true}, fate(user, "spent"))
		require.Equal(t, store.TokenRecord{Until: now.Add(time.Minute)}, fate(user, "awaited"))
		require.Zero(t, fate(user, "another"))
		require.Zero(t, fate(user, ""))
	}
	require.NoError(t, s.PurgeRevocations(t.Context(), now.Add(2*time.Minute)))
	require.Zero(t, fate("u", "awaited"))
	require.True(t, fate("u", "spent").Spent)
	require.NoError(t, s.PurgeRevocations(t.Context(), now.Add(2*time.Hour)))
	require.Zero(t, fate("u", "spent"))
}

func TestPurgeRevocations(t *testing.T) {
	s := open(t)
	require.NoError(t, s.RecordRevocation(t.Context(), store.Scope{User: "old"}, now, now.Add(-time.Millisecond)))
	require.NoError(t, s.RecordRevocation(t.Context(), store.Scope{User: "kept"}, now, now))
	extended := store.Scope{User: "extended"}
	require.NoError(t, s.RecordRevocation(t.Context(), extended, now, now.Add(time.Hour)))
	require.NoError(t, s.RecordRevocation(t.Context(), extended, now, now.Add(-time.Hour)))
	require.NoError(t, s.PurgeRevocations(t.Context(), now))
	for user, want := range map[string]int{"old": 0, "kept": 1, "extended": 1} {
		got, err := s.Revocations(t.Context(), user, "b", nil)
		require.NoError(t, err)
		require.Len(t, got, want, user)
	}
}
