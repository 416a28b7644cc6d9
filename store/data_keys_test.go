package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store/envelope"
)

func dataKey(id string) envelope.WrappedKey {
	return envelope.WrappedKey{ID: id, Wrapped: []byte{0, 1, 0xff}, KEK: "arn:aws:kms:us-east-1:111122223333:key/x", CreatedAt: now}
}

func TestDataKeys(t *testing.T) {
	s := open(t)
	require.NoError(t, s.PutKey(t.Context(), dataKey("k1")))
	require.NoError(t, s.PutKey(t.Context(), dataKey("k2")))
	got, err := s.Key(t.Context(), "k1")
	require.NoError(t, err)
	require.Equal(t, dataKey("k1"), got)

	_, err = s.Key(t.Context(), "none")
	require.ErrorIs(t, err, envelope.ErrUnknownKey)

	replaced := dataKey("k1")
	replaced.Wrapped = []byte{2}
	require.Error(t, s.PutKey(t.Context(), replaced), "a stored key is never replaced")
	got, err = s.Key(t.Context(), "k1")
	require.NoError(t, err)
	require.Equal(t, dataKey("k1"), got)
}

func TestStreamIdentity(t *testing.T) {
	s := open(t)
	for _, want := range []string{"", "one", "two", "two"} {
		if want != "" {
			require.NoError(t, s.RememberStream(t.Context(), want))
		}
		got, err := s.StreamIdentity(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestTheDataKeysOfAUser(t *testing.T) {
	s := open(t)
	put := func(id, user string, made time.Time) {
		key := dataKey(id)
		key.CreatedAt, key.SealsUntil, key.Scope = made, now.Add(time.Hour), envelope.ScopeOf(user)
		require.NoError(t, s.PutKey(t.Context(), key))
	}
	put("old", "alice", now.Add(-2*time.Hour))
	put("new", "alice", now.Add(-time.Hour))
	put("other", "bob", now)
	put("shared", "", now)
	find := func(since, at time.Time) string {
		key, err := s.SealingKey(t.Context(), envelope.ScopeOf("alice"), since, at)
		if err != nil {
			require.ErrorIs(t, err, envelope.ErrUnknownKey)
		}
		return key.ID
	}
	require.Equal(t, "new", find(now.Add(-24*time.Hour), now))
	require.Equal(t, "new", find(now.Add(-time.Hour), now))
	require.Empty(t, find(now.Add(-time.Hour+time.Millisecond), now))
	require.Empty(t, find(now.Add(-24*time.Hour), now.Add(time.Hour)))

	for _, want := range []int{2, 0} {
		n, err := s.RetireUserKeys(t.Context(), "alice", now)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	require.Empty(t, find(now.Add(-24*time.Hour), now), "none seals any more")
	n, err := s.RetireUserKeys(t.Context(), "", now)
	require.NoError(t, err)
	require.Zero(t, n, "what users share is nobody's to retire")
	old, err := s.Key(t.Context(), "old")
	require.NoError(t, err, "what it sealed still opens")
	require.Equal(t, now, old.SealsUntil.UTC())
	for _, id := range []string{"other", "shared"} {
		_, err = s.Key(t.Context(), id)
		require.NoError(t, err)
	}
}
