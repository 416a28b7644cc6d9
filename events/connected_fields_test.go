package events_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// sdkForms are what the SDKs hand over, each with all fields that it may have.
func sdkForms() map[string]string {
	entry := func(n int, refresh string) string {
		return fmt.Sprintf(`{"account":{"accountId":"id-%d","accountName":"Name","meshAccountId":"m"},"accessToken":"token-access-%d","refreshToken":%s,"tokenId":"token-id-%d","tradeToken":"token-trade-%d"}`, n, n, refresh, n, n)
	}
	rest := `"brokerType":"b","brokerName":"B","brokerBrandInfo":{"brokerLogo":"x"},"expiresInSeconds":3600,"refreshTokenExpiresInSeconds":7200`
	one := `{"accountTokens":[` + entry(1, `"token-refresh-1"`) + `],` + rest + `}`
	two := `{"accountTokens":[` + entry(1, `"token-refresh-1"`) + `,` + entry(2, `"token-refresh-2"`) + `],` + rest + `}`
	only := `{"accountTokens":[` + entry(1, `null`) + `],` + rest + `}`
	delayed := `{"refreshToken":"token-refresh-1",` + rest + `}`
	forms := map[string]string{"delayedAuth, wrapped": `{"delayedAuth":` + delayed + `}`, "delayedAuth, bare": delayed, "delayedAuth, with nulls": `{"accountTokens":null,` + delayed[1:]}
	for name, form := range map[string]string{"one": one, "two": two, "access tokens only": only} {
		forms[name+", wrapped"] = `{"accessToken":` + form + `,"delayedAuth":null}`
		forms[name+", bare"] = form
		forms[name+", with nulls"] = `{"refreshToken":null,"delayedAuth":null,` + form[1:]
	}
	return forms
}

// tokensIn are the tokens that a value holds.
func tokensIn(v any) (all []string) {
	switch v := v.(type) {
	case map[string]any:
		for _, v := range v {
			all = append(all, tokensIn(v)...)
		}
	case []any:
		for _, v := range v {
			all = append(all, tokensIn(v)...)
		}
	case string:
		if strings.HasPrefix(v, "token-") {
			all = append(all, v)
		}
	}
	return all
}

// tokensOf are the tokens that a connect keeps.
func tokensOf(c events.Connected) (all []string) {
	if d := c.Payload.DelayedAuth; d != nil {
		all = append(all, d.RefreshToken.Reveal())
	}
	if a := c.Payload.AccessToken; a != nil {
		for _, t := range a.AccountTokens {
			all = append(all, t.AccessToken.Reveal(), t.RefreshToken.Reveal(), t.TokenID.Reveal(), t.TradeToken.Reveal())
		}
	}
	return slices.DeleteFunc(all, func(token string) bool { return !strings.HasPrefix(token, "token-") })
}

// everyMember calls with each member of each object in a value.
func everyMember(v any, at string, each func(object map[string]any, name, at string)) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			everyMember(v[name], at+"."+name, each)
			each(v, name, at+"."+name)
		}
	case []any:
		for i, inner := range v {
			everyMember(inner, fmt.Sprintf("%s.%d", at, i), each)
		}
	}
}

// TestEveryFieldMayBeOdd: whichever field of whatever an SDK hands over is null, absent,
// empty or of another type, no token that stands elsewhere is lost. Where one could be, or
// nothing is left, the connect is refused as a whole, which a dead letter keeps.
func TestEveryFieldMayBeOdd(t *testing.T) {
	odd := map[string]any{"null": nil, "empty": "", "a number": 7, "a boolean": true, "an object": map[string]any{}, "an array": []any{}, "another text": "x"}
	for form, payload := range sdkForms() {
		var doc any
		require.NoError(t, json.Unmarshal([]byte(payload), &doc))
		everyMember(doc, "payload", func(object map[string]any, name, at string) {
			before := object[name]
			defer func() { object[name] = before }()
			check := func(how string) {
				body, err := json.Marshal(map[string]any{"userId": "u", "payload": doc})
				require.NoError(t, err)
				what := fmt.Sprint(form, ": ", at, " is ", how)
				c, err := events.DecodeConnected(body)
				left := tokensIn(doc)
				if err != nil {
					require.True(t, name == "brokerType" || len(left) == 0 && how != "null", "%s: %v", what, err)
					return
				}
				require.ElementsMatch(t, left, tokensOf(c), what)
				require.True(t, len(left) > 0 || c.Empty() || how == "another text", what)
			}
			for how, value := range odd {
				object[name] = value
				check(how)
			}
			delete(object, name)
			check("absent")
		})
	}
}

// TestTokensWithoutAnAccount: what an entry without an account brings is that of its login.
func TestTokensWithoutAnAccount(t *testing.T) {
	type kept = map[string][]string // by account: access token, refresh token, token id, trade token
	one, two := `"account":{"accountId":"one"}`, `"account":{"accountId":"two"}`
	for name, c := range map[string]struct {
		entries string
		want    kept
		told    int
	}{
		"alone":                            {`{"accessToken":"A","refreshToken":"R","tokenId":"T","tradeToken":"W"}`, kept{"": {"A R T W"}}, 1},
		"alone, an access token only":      {`{"account":{"accountId":null},"accessToken":"A"}`, kept{"": {"A   "}}, 1},
		"alone, a token id only":           {`{"account":{"accountId":""},"tokenId":"T"}`, kept{"": {"  T "}}, 1},
		"twice the same":                   {`{"accessToken":"A","refreshToken":"R"},{"accessToken":"A","refreshToken":"R"}`, kept{"": {"A R  "}}, 2},
		"several of one login":             {`{"accessToken":"A","refreshToken":"R"},{"accessToken":"B","refreshToken":"R"}`, kept{"": {"A R  ", "B R  "}}, 2},
		"the only account's":               {`{` + one + `,"refreshToken":"R"},{"accessToken":"A","refreshToken":"R","tokenId":"T","tradeToken":"W"}`, kept{"one": {"A R T W"}}, 1},
		"the only account's, without more": {`{"accessToken":"A"},{` + one + `,"refreshToken":"R"}`, kept{"one": {"A R  "}}, 1},
		"for all accounts of the login":    {`{` + one + `,"refreshToken":"R"},{` + two + `,"refreshToken":"R"},{"accessToken":"A","refreshToken":"R"}`, kept{"one": {"A R  "}, "two": {"A R  "}}, 1},
		"an echo":                          {`{` + one + `,"accessToken":"A","refreshToken":"R"},{"accessToken":"A","refreshToken":"R"}`, kept{"one": {"A R  "}}, 1},
		"another beside the account's own": {`{` + one + `,"accessToken":"A","refreshToken":"R"},{"accessToken":"B","refreshToken":"R"}`, kept{"one": {"A R  "}}, 2},
		"two for the accounts of a login":  {`{` + one + `,"refreshToken":"R"},{` + two + `,"refreshToken":"R"},{"accessToken":"A","refreshToken":"R"},{"accessToken":"B","refreshToken":"R"}`, kept{"one": {" R  "}, "two": {" R  "}}, 4},
		"one account of the login has one": {`{` + one + `,"accessToken":"A","refreshToken":"R"},{` + two + `,"refreshToken":"R"},{"accessToken":"B","refreshToken":"R"}`, kept{"one": {"A R  "}, "two": {" R  "}}, 2},
		"of another login":                 {`{` + one + `,"accessToken":"A","refreshToken":"R"},{"accessToken":"B","refreshToken":"S"}`, kept{"one": {"A R  "}, "": {"B S  "}}, 1},
		"of one login among several":       {`{` + one + `,"refreshToken":"R"},{` + two + `,"refreshToken":"S"},{"accessToken":"B"}`, kept{"one": {" R  "}, "two": {" S  "}}, 2},
	} {
		in, err := events.DecodeConnected([]byte(`{"userId":"u","payload":{"brokerType":"b","accountTokens":[` + c.entries + `]}}`))
		require.NoError(t, err, name)
		got := kept{}
		for _, a := range in.Payload.AccessToken.AccountTokens {
			id := a.Account.AccountID
			got[id] = append(got[id], strings.Join([]string{a.AccessToken.Reveal(), a.RefreshToken.Reveal(), a.TokenID.Reveal(), a.TradeToken.Reveal()}, " "))
		}
		require.Equal(t, c.want, got, name)
		require.Len(t, in.LeftOut, c.told, "%s: %v", name, in.LeftOut)
	}
}
