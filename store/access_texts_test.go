package store_test

import (
	"encoding/json"
	"testing"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// plainSet is a token set that hides nothing.
type plainSet struct {
	Accounts []plainAccount    `json:"a"`
	Refresh  string            `json:"r,omitempty"`
	Metadata map[string]string `json:"m,omitempty"`
}

type plainAccount struct {
	ID      string `json:"i"`
	Access  string `json:"a"`
	TokenID string `json:"t,omitempty"`
	Refresh string `json:"r,omitempty"`
}

// storedSets are token sets as this release and others store them, and as none does.
func storedSets(t *rapid.T, sealer envelope.Sealer, b envelope.Binding) envelope.Blob {
	text := rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[A-Za-z0-9._~+/=-]{1,40}`), rapid.String(), rapid.StringMatching(`[<>&"\\\x00-\x7f\x{2028}]{1,8}`))
	var set plainSet
	for range rapid.IntRange(0, 4).Draw(t, "accounts") {
		// Few ids, so that some stand twice.
		id := rapid.OneOf(rapid.SampledFrom([]string{"", "a", "b"}), text).Draw(t, "id")
		set.Accounts = append(set.Accounts, plainAccount{id, text.Draw(t, "access"), text.Draw(t, "token id"), text.Draw(t, "own refresh")})
	}
	set.Refresh, set.Metadata = text.Draw(t, "refresh"), rapid.MapOfN(text, text, 0, 2).Draw(t, "metadata")
	var plain []byte
	switch form := rapid.SampledFrom([]string{"this release's", "escaped for HTML", "indented", "with other members", "nulls", "cut", "changed"}).Draw(t, "form"); form {
	case "this release's":
		tokens := store.TokenSet{Accounts: []store.AccountToken{}, RefreshToken: secret.New(set.Refresh)}
		for _, a := range set.Accounts {
			tokens.Accounts = append(tokens.Accounts, store.AccountToken{
				AccountID: a.ID, AccessToken: secret.New(a.Access), TokenID: secret.New(a.TokenID), RefreshToken: secret.New(a.Refresh),
			})
		}
		return store.SealTokens(sealer, tokens, b)
	case "escaped for HTML":
		plain, _ = json.Marshal(set)
	case "indented":
		plain, _ = json.MarshalIndent(set, "", " ")
	case "with other members":
		plain, _ = jsonv2.Marshal(map[string]any{"r": set.Refresh, "x": 1, "a": append([]any{map[string]any{"i": "c", "x": []int{1}, "a": "token"}}, set.Accounts)[:1]})
	case "nulls":
		plain = []byte(`{"a":[{"i":"a","a":null,"t":null},{"i":null,"a":"b"}]}`)
	default:
		plain, _ = jsonv2.Marshal(set)
		at := rapid.IntRange(0, len(plain)-1).Draw(t, "at")
		if form == "cut" {
			plain = plain[:at]
		} else {
			plain[at] = rapid.SampledFrom([]byte(`{}[]",:\iatr0 `)).Draw(t, "byte")
		}
	}
	return sealer.Seal(plain, b)
}

// Whatever is stored, replies are byte by byte those with the tokens that the JSON package
// reads.
func TestAccessTextsAreTheTokens(t *testing.T) {
	e := sealing(t)
	sealer, err := e.Sealer(t.Context(), "user")
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		g := active("g")
		g.Accounts = []store.Account{{ID: "a"}, {ID: "b"}}
		if rapid.IntRange(0, 9).Draw(t, "of an earlier release") == 0 {
			g.Accounts = append(g.Accounts, store.Account{})
		}
		before := g.Clone()
		g.Sealed = storedSets(t, sealer, g.Binding())
		want, wantErr := store.OpenTokens(t.Context(), e, g.Sealed, g.Binding())
		healed, got, err := store.OpenAccess(t.Context(), e, g)
		if wantErr != nil && err == nil {
			// The accounts are sound, and what comes after them is not.
			got.Wipe()
			return
		}
		require.Equal(t, wantErr == nil, err == nil, "%v, %v", wantErr, err)
		require.Equal(t, before.Accounts, g.Accounts, "what is kept is shared")
		if err != nil {
			require.Equal(t, wantErr.Error(), err.Error())
			return
		}
		before.Heal(&want)
		require.Equal(t, before.Accounts, healed.Accounts)
		ids := []string{"", "a", "b", "c"}
		for _, a := range want.Accounts {
			ids = append(ids, a.AccountID)
		}
		var decoded, lean events.TokenReply
		var all []events.TokenTexts
		for _, id := range ids {
			its := want.Account(id)
			texts, ok := got.Of(id)
			require.Equal(t, its != nil && !its.AccessToken.Empty(), ok, id)
			if ok {
				decoded.AccessTokens = append(decoded.AccessTokens, events.IntegrationAccessToken{AccountID: id, AccessToken: its.AccessToken, TokenID: its.TokenID})
				lean.AccessTokens, all = append(lean.AccessTokens, events.IntegrationAccessToken{AccountID: id}), append(all, texts)
			}
		}
		expected, err := decoded.Encode()
		require.NoError(t, err)
		body, err := lean.EncodeTexts(all)
		require.NoError(t, err)
		require.Equal(t, string(expected), string(body))
		got.Wipe()
	})
}
