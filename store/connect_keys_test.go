package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

func TestConnectKeys(t *testing.T) {
	s := open(t)
	keys, err := s.ConnectKeys(t.Context())
	require.NoError(t, err)
	require.Empty(t, keys)

	key := func(sequence int64, kid string) store.ConnectKey {
		return store.ConnectKey{
			Sequence: sequence, KeyID: kid, Public: `{"kty":"EC"}`, CreatedAt: now,
			Sealed: envelope.Blob{KeyID: "d", Data: []byte{1}},
		}
	}
	for i, kid := range []string{"a", "b", "c"} {
		require.NoError(t, s.AddConnectKey(t.Context(), key(int64(i+9), kid)))
	}
	require.ErrorIs(t, s.AddConnectKey(t.Context(), key(11, "other")), store.ErrConflict)
	require.NoError(t, s.DeleteConnectKey(t.Context(), 10))
	require.NoError(t, s.DeleteConnectKey(t.Context(), 10))
	keys, err = s.ConnectKeys(t.Context())
	require.NoError(t, err)
	require.Equal(t, []store.ConnectKey{key(11, "c"), key(9, "a")}, keys)
}

func TestConnectKeysAreBoundToNameAndPlace(t *testing.T) {
	b := store.ConnectKey{Sequence: 3, KeyID: "k"}.Binding()
	require.Equal(t, envelope.Binding{Purpose: envelope.PurposeConnectKey, Grant: "k", Version: 3}, b)
}
