package store

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events/secret"
)

func TestWipedTextsAreGone(t *testing.T) {
	set := TokenSet{Accounts: []AccountToken{{AccountID: "a", AccessToken: secret.New("access"), TokenID: secret.New("id")}}, RefreshToken: secret.New("refresh")}
	found := &AccessTexts{plain: set.marshal()}
	require.True(t, found.find())
	for name, texts := range map[string]*AccessTexts{"in the set": found, "decoded": textsOf(set)} {
		token, ok := texts.Of("a")
		require.True(t, ok, name)
		require.Equal(t, `"access"`, string(token.AccessToken), name)
		plain := texts.plain
		texts.Wipe()
		for _, memory := range [][]byte{plain, token.AccessToken, token.TokenID} {
			require.Empty(t, bytes.Trim(memory, "\x00"), name)
		}
		_, ok = texts.Of("a")
		require.False(t, ok, name)
	}
}
