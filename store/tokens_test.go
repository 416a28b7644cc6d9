package store_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim/kmssimtest"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// envelopes returns what makes envelopes, as of processes that have just started,
// whose data keys lie in a database.
func envelopes(t testing.TB, keys *store.Store) func() *envelope.Envelope {
	t.Helper()
	o := envelope.Options{KMS: kmssimtest.Start(t, "alias/tokens").Client(), Store: keys, KeyID: "alias/tokens"}
	return func() *envelope.Envelope { return must(envelope.New(o)) }
}

// sealing returns an envelope whose data keys lie in a database.
func sealing(t testing.TB) *envelope.Envelope {
	t.Helper()
	sealer := envelopes(t, open(t))()
	_, err := sealer.Sealer(t.Context(), "user")
	require.NoError(t, err)
	return sealer
}

var tokenSets = rapid.Custom(func(t *rapid.T) store.TokenSet {
	text := rapid.Map(rapid.String(), secret.New)
	set := store.TokenSet{Accounts: []store.AccountToken{}, RefreshToken: text.Draw(t, "refresh"), TradeToken: text.Draw(t, "trade")}
	accounts := func(what string) (all []store.AccountToken) {
		for range rapid.IntRange(0, 4).Draw(t, what) {
			all = append(all, store.AccountToken{
				AccountID: rapid.String().Draw(t, "account"), AccessToken: text.Draw(t, "access"), TokenID: text.Draw(t, "token id"),
				RefreshToken: text.Draw(t, "own refresh token"),
			})
		}
		return all
	}
	set.Accounts = append(set.Accounts, accounts("accounts")...)
	return set
})

func TestTokensRoundTrip(t *testing.T) {
	e := sealing(t)
	sealer, err := e.Sealer(t.Context(), "user")
	require.NoError(t, err)
	b := active("g").Binding()
	rapid.Check(t, func(t *rapid.T) {
		want := tokenSets.Draw(t, "tokens")
		got, err := store.OpenTokens(t.Context(), e, store.SealTokens(sealer, want, b), b)
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func TestTokensOpenOnlyAtTheirVersion(t *testing.T) {
	const token = "eyJCANARYx7Q-a-long-token"
	e := sealing(t)
	sealer, err := e.Sealer(t.Context(), "user")
	require.NoError(t, err)
	g := active("g")
	set := store.TokenSet{Accounts: []store.AccountToken{{AccountID: "acc-1", AccessToken: secret.New(token)}}, RefreshToken: secret.New(token)}
	blob := store.SealTokens(sealer, set, g.Binding())
	require.NotContains(t, string(blob.Data), token)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", set, set, set), token)

	g.Version++
	_, err = store.OpenTokens(t.Context(), e, blob, g.Binding())
	require.ErrorIs(t, err, envelope.ErrSealed)
	require.ErrorContains(t, err, "grant g")

	_, err = store.OpenTokens(t.Context(), e, envelope.Blob{KeyID: "none", Data: blob.Data}, g.Binding())
	require.ErrorIs(t, err, envelope.ErrUnknownKey)
}

func TestWhatIsNoTokenSetIsToldWithoutItsText(t *testing.T) {
	const token = "eyJCANARYx7Q"
	e := sealing(t)
	sealer, err := e.Sealer(t.Context(), "user")
	require.NoError(t, err)
	b := active("g").Binding()
	for _, plain := range []string{"", "{", "null", `{"r":"` + token + `"`, `{"r":"` + token + `"}{}`, `{"r":"` + token + `","r":""}`, `{"a":[{"a":1}]}`, `{"a":[{"a":"` + token + `"]}`, token, `"` + token + `"`, `{"r":{"` + token + `":1}}`, `{"a":["` + token + `"]}`} {
		_, err := store.OpenTokens(t.Context(), e, sealer.Seal([]byte(plain), b), b)
		require.ErrorContains(t, err, "unexpected form")
		require.NotContains(t, err.Error(), token)
		require.NotErrorIs(t, err, envelope.ErrSealed)
	}
}

func TestTokensOfANewerVersionAreOpened(t *testing.T) {
	e := sealing(t)
	sealer, err := e.Sealer(t.Context(), "user")
	require.NoError(t, err)
	b := active("g").Binding()
	for plain, want := range map[string]store.TokenSet{
		`{}`: {Accounts: []store.AccountToken{}},
		`{"x":{"y":[1,null]},"r":"\u003cr\u003e","t":"t","o":"o","a":[{"i":"1","x":[],"a":"\"","t":"id"},{}]}`: {
			Accounts:     []store.AccountToken{{AccountID: "1", AccessToken: secret.New(`"`), TokenID: secret.New("id")}, {}},
			RefreshToken: secret.New("<r>"), TradeToken: secret.New("t"), Origin: "o",
		},
	} {
		got, err := store.OpenTokens(t.Context(), e, sealer.Seal([]byte(plain), b), b)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestTokenSetAccount(t *testing.T) {
	set := store.TokenSet{Accounts: []store.AccountToken{{AccountID: "a"}, {AccountID: "b"}}}
	require.Same(t, &set.Accounts[1], set.Account("b"))
	require.Nil(t, set.Account("c"))
}
