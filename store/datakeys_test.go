package store_test

import (
	"testing"

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
