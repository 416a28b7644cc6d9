package events_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events"
)

// members are those of an object as they are written: names and values are
// whatever the sender made of them.
type members [][2]string

func (m members) String() string {
	var parts []string
	for _, pair := range m {
		parts = append(parts, `"`+pair[0]+`":`+pair[1])
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// unread is what a member may be that nobody reads.
var unread = rapid.SampledFrom([]string{
	`null`, `0`, `-1e999`, `"x"`, `""`, `[]`, `{}`, `true`, `"\ud800"`, "\"\xff\"", `{"a":1,"a":2}`, `{"` + canary + `":"` + canary + `"}`, `[[["` + canary + `"]]]`, `"\udfff\ud800 ` + canary + `"`,
})

// odd is what a member may be that is of the wrong kind, whatever its kind.
var odd = rapid.SampledFrom([]string{`[]`, `{}`, `true`, `{"` + canary + `":1}`, `["` + canary + `"]`})

var oddLifetimes = rapid.OneOf(odd, rapid.SampledFrom([]string{
	`-1`, `"-1"`, `"3600"`, `"3600.5"`, `3600.5`, `1e9`, `1e999`, `"1e9"`, `"an hour"`, `""`, `"Infinity"`, `"0x10"`, `null`, "\"\xff\"", `"` + canary + `"`, `9007199254740993`,
}))

// strewn adds to an object what nobody reads, twice at times, in any order.
func strewn(t *rapid.T, at string, m members) string {
	for range rapid.IntRange(0, 3).Draw(t, at+" more") {
		name := rapid.SampledFrom([]string{"brokerBrandInfo", "x", "x", "USERID", `\ud800`, "\xff", "meshAccountId", canary, "id"}).Draw(t, at+" name")
		m = append(m, [2]string{name, unread.Draw(t, at+" value")})
	}
	return rapid.Permutation(m).Draw(t, at+" order").String()
}

// twice repeats some members as they are.
func twice(t *rapid.T, at string, m members) members {
	for _, pair := range m {
		if rapid.IntRange(0, 9).Draw(t, at+" twice") == 0 {
			m = append(m, pair)
		}
	}
	return m
}

// TestWhatDoesNotMatterDoesNotKill: whatever is odd in a connect where it does not
// matter, every account that can be kept is kept, with exactly its tokens, and
// what is told of the rest repeats nothing.
func TestWhatDoesNotMatterDoesNotKill(t *testing.T) {
	told := 0
	rapid.Check(t, func(t *rapid.T) {
		type kept struct{ access, refresh, tokenID string }
		want := map[string]kept{}
		nameless := map[string]bool{}
		var stray bool
		var entries []string
		entry := func(m members) { entries = append(entries, strewn(t, "entry", twice(t, "entry", m))) }
		account := func(id string) [2]string {
			m := members{{"accountId", `"` + id + `"`}, {"accountName", rapid.OneOf(odd, unread, rapid.Just(`"Main"`)).Draw(t, "name")}}
			return [2]string{"account", strewn(t, "account", twice(t, "account", m))}
		}
		for i := range rapid.IntRange(1, 3).Draw(t, "good") {
			id := fmt.Sprintf("good-%d", i)
			k := kept{access: "access of " + id}
			m := members{account(id), {"accessToken", `"` + k.access + `"`}}
			switch rapid.IntRange(0, 4).Draw(t, "beside") {
			case 0:
				k.refresh = "refresh of " + id
				m = append(m, [2]string{"refreshToken", `"` + k.refresh + `"`})
			case 1:
				k.tokenID = "4711"
				m = append(m, [2]string{"tokenId", `4711`})
			case 2: // the other tokens are of the wrong kind
				m = append(m, [2]string{"tokenId", odd.Draw(t, "token id")}, [2]string{"refreshToken", odd.Draw(t, "refresh")}, [2]string{"tradeToken", odd.Draw(t, "trade")})
			case 3:
				k.access, k.refresh = "", "refresh of "+id
				m = members{account(id), {"refreshToken", `"` + k.refresh + `"`}, {"accessToken", rapid.SampledFrom([]string{`null`, `""`, `{}`, `7`}).Draw(t, "access")}}
			}
			want[id] = k
			entry(m)
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "bad") {
			switch rapid.IntRange(0, 4).Draw(t, "kind of bad") {
			case 0:
				entries = append(entries, unread.Draw(t, "entry"))
			case 1: // a wallet without any token
				entry(members{account(fmt.Sprintf("wallet-%d", i)), {"accessToken", `""`}, {"refreshToken", `null`}})
			case 2: // it is that of the only login, or nobody knows whose it is
				stray = true
				entry(members{{"account", unread.Draw(t, "account")}, {"accessToken", `"` + canary + `"`}})
			case 3: // the refresh will tell whose it is
				refresh := fmt.Sprintf("refresh of nobody %d", i)
				nameless[refresh] = true
				entry(members{{"account", `{"accountId":` + rapid.SampledFrom([]string{`null`, `""`, `7`, `{}`, `"\u202e"`, `"\ud800"`}).Draw(t, "id") + `}`}, {"refreshToken", `"` + refresh + `"`}, {"accessToken", `"` + canary + `"`}})
			case 4:
				entry(members{account(fmt.Sprintf("bad-%d", i)), {"accessToken", odd.Draw(t, "access")}})
			}
		}
		if only := want["good-0"]; stray && len(want) == 1 && only.access == "" {
			only.access = canary
			want["good-0"] = only
		}
		entries = rapid.Permutation(entries).Draw(t, "entries")
		form := strewn(t, "form", twice(t, "form", members{
			{"accountTokens", "[" + strings.Join(entries, ",") + "]"},
			{"brokerType", `"coinbase"`},
			{"brokerName", rapid.OneOf(odd, rapid.Just(`"Coinbase"`)).Draw(t, "broker")},
			{"expiresInSeconds", oddLifetimes.Draw(t, "life")},
			{"refreshTokenExpiresInSeconds", oddLifetimes.Draw(t, "refresh life")},
		}))
		if rapid.Bool().Draw(t, "wrapped") {
			form = strewn(t, "payload", members{{"accessToken", form}, {"delayedAuth", rapid.SampledFrom([]string{`null`, `{}`, `[]`, `""`}).Draw(t, "other form")}})
		}
		body := strewn(t, "data", twice(t, "data", members{{"userId", `"user-1"`}, {"payload", form}, {"connectedAt", rapid.OneOf(odd, rapid.SampledFrom([]string{
			`"2031-05-06T07:08:09Z"`, `null`, `""`, `1924990000`, `"yesterday"`, `"1960-01-01T00:00:00Z"`, `"9999-12-31T23:59:59Z"`,
		})).Draw(t, "connectedAt")}}))
		switch rapid.IntRange(0, 3).Draw(t, "mode") {
		case 0:
			body = strewn(t, "event", members{{"specversion", `"1.0"`}, {"type", `"integration.connected"`}, {"data", body}, {"time", `"noon"`}, {"source", odd.Draw(t, "source")}})
		case 1:
			body = strewn(t, "event", members{{"specversion", `"1.0"`}, {"type", `null`}, {"data_base64", `"` + base64.StdEncoding.EncodeToString([]byte(body)) + `"`}})
		case 2:
			body = "\ufeff \n" + body + "\r\n"
		}
		before := strings.Clone(body)

		c, err := events.DecodeConnected([]byte(body))
		require.NoError(t, err, body)
		require.Equal(t, before, body, "the body is changed")
		require.Equal(t, "user-1", c.UserID)
		got := map[string]kept{}
		for _, a := range c.Payload.AccessToken.AccountTokens {
			if a.Account.AccountID == "" {
				require.True(t, nameless[a.RefreshToken.Reveal()], body)
				require.Equal(t, canary, a.AccessToken.Reveal())
				delete(nameless, a.RefreshToken.Reveal())
				continue
			}
			got[a.Account.AccountID] = kept{a.AccessToken.Reveal(), a.RefreshToken.Reveal(), a.TokenID.Reveal()}
		}
		require.Equal(t, want, got, body)
		require.Empty(t, nameless, "refresh tokens are lost: %s", body)
		require.GreaterOrEqual(t, c.Payload.AccessToken.ExpiresInSeconds, events.Seconds(0))
		require.NotContains(t, strings.Join(c.LeftOut, "\n"), canary)
		told += len(c.LeftOut)
		require.Equal(t, []string{"user-1"}, events.FindUsers([]byte(body)))
	})
	require.NotZero(t, told, "nothing odd was tried")
}

func TestWhatIsLeftOutIsTold(t *testing.T) {
	type object = map[string]any
	in := func(change object, path ...any) string {
		return edited(t, accessTokenForm, change, append([]any{"payload", "accessToken"}, path...)...)
	}
	for body, want := range map[string][]string{
		accessTokenForm:                                             nil,
		in(object{"expiresInSeconds": "3600"}):                      nil,
		in(object{"expiresInSeconds": 1e9}):                         nil,
		in(object{"expiresInSeconds": 3600.5}):                      nil,
		in(object{"expiresInSeconds": -1}):                          {"payload.accessToken.expiresInSeconds: negative"},
		in(object{"expiresInSeconds": "soon"}):                      {"payload.accessToken.expiresInSeconds: not a number of seconds"},
		in(object{"brokerName": 5}):                                 {"payload.accessToken.brokerName: a JSON number does not fit there"},
		in(object{"tokenId": 5}, "accountTokens", 1):                nil,
		in(object{"tokenId": []any{}}, "accountTokens", 1):          {"payload.accessToken.accountTokens.1.tokenId: a JSON array does not fit there"},
		in(object{"accessToken": nil}, "accountTokens", 1):          {"payload.accessToken.accountTokens.1: no token"},
		in(object{"accountName": 5}, "accountTokens", 0, "account"): {"payload.accessToken.accountTokens.0.account.accountName: a JSON number does not fit there"},
		in(object{"account": nil}, "accountTokens", 0):              {"payload.accessToken.accountTokens.0.account.accountId: empty"},
		in(object{"account": object{"accountId": strings.Repeat("x", 513)}}, "accountTokens", 1): {
			"payload.accessToken.accountTokens.1.account.accountId: 513 bytes, at most 512; a hash stands for it",
		},
		edited(t, accessTokenForm, object{"connectedAt": "yesterday"}):                                       {"connectedAt: not a time in the form of RFC 3339"},
		edited(t, accessTokenForm, object{"connectedAt": 1924990000}):                                        {"connectedAt: a JSON number does not fit there"},
		edited(t, accessTokenForm, object{"connectedAt": "1970-01-01T00:30:00+01:00"}):                       {"connectedAt: outside the years 1970 to 9899"},
		strings.Replace(accessTokenForm, `"brokerName": "Coinbase"`, `"brokerName":"a","brokerName":"b"`, 1): {"payload.accessToken.brokerName: stands twice, with different values"},
		cloudEvent(t, events.IntegrationConnected, accessTokenForm, object{"id": nil, "source": " ", "time": 5, "type": ""}): {
			"type: empty", "id: empty", "source: empty", "time: a JSON number does not fit there",
		},
	} {
		c, err := events.DecodeConnected([]byte(body))
		require.NoError(t, err, body)
		require.ElementsMatch(t, want, c.LeftOut, body)
	}

	many := strings.Repeat(`{"account":{"accountId":"a"}},`, 30)
	c, err := events.DecodeConnected([]byte(`{"userId":"u","payload":{"accessToken":{"brokerType":"b","accountTokens":[` + many + `{"account":{"accountId":"b"},"accessToken":"x"}]}}}`))
	require.NoError(t, err)
	require.Len(t, c.LeftOut, 11)
	require.Equal(t, "and 20 more", c.LeftOut[10])
}

func TestNothingToKeep(t *testing.T) {
	wallet := `{"account":{"accountId":"a"},"accessToken":null,"refreshToken":""}`
	for body, empty := range map[string]bool{
		`{"accountTokens":[` + wallet + `],"brokerType":"b"}`:                              true,
		`{"accountTokens":[` + wallet + `,` + wallet + `,null],"brokerType":"b"}`:          true,
		`{"accountTokens":[],"brokerType":"b"}`:                                            true,
		`{"accountTokens":[{"account":{"accountId":"a"},"tokenId":"t"}],"brokerType":"b"}`: false,
	} {
		for _, payload := range []string{body, `{"accessToken":` + body + `}`, `{"accessToken":` + body + `,"delayedAuth":null}`} {
			c, err := events.DecodeConnected([]byte(`{"userId":"u","payload":` + payload + `}`))
			require.NoError(t, err, payload)
			require.Equal(t, empty, c.Empty(), payload)
		}
	}
	// What may have been a token is not nothing.
	for _, entry := range []string{`"x"`, `{"account":{"accountId":"a"},"accessToken":7}`, `{"account":{"accountId":"a"},"tradeToken":"x"}`} {
		_, err := events.DecodeConnected([]byte(`{"userId":"u","payload":{"accountTokens":[` + wallet + `,` + entry + `],"brokerType":"b"}}`))
		require.Error(t, err, entry)
	}
}

// TestALifetimeInText: white space around a number does not make a token that never
// ends, and what is no number is told.
func TestALifetimeInText(t *testing.T) {
	for life, want := range map[string]events.Seconds{
		`" 3600 "`: 3600, `"3600\n"`: 3600, `"\t\r3600.5"`: 3600.5, `"\u00a03600"`: 3600, `"1e3 "`: 1000,
		`" "`: 0, `"36 00"`: 0, `"+3600"`: 0, `"3600s"`: 0, `"3_600"`: 0, `"0x10"`: 0,
	} {
		c, err := events.DecodeConnected([]byte(`{"userId":"u","payload":{"brokerType":"b","refreshToken":"r","refreshTokenExpiresInSeconds":` + life + `}}`))
		require.NoError(t, err, life)
		require.Equal(t, want, c.Payload.DelayedAuth.RefreshTokenExpiresInSeconds, life)
		require.Equal(t, want == 0, len(c.LeftOut) == 1, life)
	}
}

// TestTwoReadingsAreRefused: of two different values where it matters nobody can
// say which one counts.
func TestTwoReadingsAreRefused(t *testing.T) {
	const entry = `"account":{"accountId":"a"},"accessToken":"x"`
	for name, body := range map[string]string{
		"userId":                              `{"userId":"u","userId":"v","payload":{"refreshToken":"r","brokerType":"b"}}`,
		"payload":                             `{"userId":"u","payload":{"refreshToken":"r","brokerType":"b"},"payload":{"refreshToken":"s","brokerType":"b"}}`,
		"payload.refreshToken":                `{"userId":"u","payload":{"refreshToken":"r","refreshToken":"s","brokerType":"b"}}`,
		"payload.brokerType":                  `{"userId":"u","payload":{"refreshToken":"r","brokerType":"b","brokerType":"c"}}`,
		"payload.accountTokens.0.accessToken": `{"userId":"u","payload":{"brokerType":"b","accountTokens":[{` + entry + `,"accessToken":"y"}]}}`,
		"payload.accountTokens.0.account.accountId": `{"userId":"u","payload":{"brokerType":"b","accountTokens":[{"account":{"accountId":"a","accountId":"b"},"accessToken":"x"}]}}`,
		"payload.accountTokens.0.account":           `{"userId":"u","payload":{"brokerType":"b","accountTokens":[{` + entry + `,"account":{}}]}}`,
		"specversion":                               `{"specversion":"1.0","specversion":"1","userId":"u"}`,
	} {
		_, err := events.DecodeConnected([]byte(body))
		require.EqualError(t, err, "invalid integration.connected: "+name+": stands twice, with different values")
	}
	for _, body := range []string{
		`{"userId":"u","userId":"\u0075","userId":null,"payload":{"refreshToken":"r","brokerType":"b"}}`,
		`{"userId":"u","payload":{"refreshToken":"r","brokerType":"b"},"payload":{"refreshToken":"r","brokerType":"b"}}`,
	} {
		_, err := events.DecodeConnected([]byte(body))
		require.NoError(t, err, "the same twice is once")
	}
}

// TestAnAmbiguousEntryCostsNoOther: the good account beside it is kept, and the
// ambiguous one is told.
func TestAnAmbiguousEntryCostsNoOther(t *testing.T) {
	const good = `{"account":{"accountId":"good"},"accessToken":"A","refreshToken":"R"}`
	for _, bad := range []string{
		`{"account":{"accountId":"x"},"accessToken":"1","accessToken":"2"}`,
		`{"account":{"accountId":"x"},"refreshToken":"1","refreshToken":"2"}`,
		`{"account":{"accountId":"x","accountId":"y"},"accessToken":"1"}`,
		`{"account":{"accountId":"x"},"account":{"accountId":"y"},"accessToken":"1"}`,
		`{"account":{"accountId":"x"},"accessToken":"1","tradeToken":"1","tradeToken":"2"}`,
		`{"account":{"accountId":"x"},"accessToken":"1","tokenId":"1","tokenId":2}`,
	} {
		for _, entries := range []string{good + "," + bad, bad + "," + good} {
			c, err := events.DecodeConnected([]byte(`{"userId":"u","payload":{"brokerType":"b","accountTokens":[` + entries + `]}}`))
			require.NoError(t, err, entries)
			require.Len(t, c.Payload.AccessToken.AccountTokens, 1, entries)
			require.Equal(t, "good", c.Payload.AccessToken.AccountTokens[0].Account.AccountID)
			require.Len(t, c.LeftOut, 1, entries)
		}
	}
}

// TestNoTokenIsNoDeadLetter: whatever else is missing, where there is no token
// there is nothing to keep.
func TestNoTokenIsNoDeadLetter(t *testing.T) {
	for _, payload := range []string{
		`{"accessToken":{"accountTokens":[{"account":{"accountId":"0x"},"accessToken":""}]}}`,
		`{"delayedAuth":{"brokerType":"b","refreshToken":""}}`,
		`{"delayedAuth":{"refreshToken":""}}`,
		`{"brokerType":"b","refreshToken":""}`,
		`{"brokerType":"b","refreshToken":null}`,
		`{"brokerType":"b","accountTokens":null}`,
		`{"brokerType":"b","accountTokens":null,"refreshToken":null}`,
		`{"delayedAuth":{"brokerType":"b","refreshToken":null}}`,
		`{"accessToken":{"brokerType":"b","accountTokens":null}}`,
		`{"accessToken":null,"delayedAuth":null}`,
	} {
		c, err := events.DecodeConnected([]byte(`{"userId":"u","payload":` + payload + `}`))
		require.NoError(t, err, payload)
		require.True(t, c.Empty(), payload)
		require.NotEmpty(t, c.LeftOut, payload)
	}
	for _, payload := range []string{
		`{"accessToken":{"accountTokens":[{"account":{"accountId":"a"},"accessToken":"x"}]}}`,
		`{"delayedAuth":{"refreshToken":"r"}}`,
		`{"delayedAuth":{"brokerType":"b","refreshToken":7}}`,
		`{"accessToken":{"brokerType":"b","accountTokens":"x"}}`,
		`{"accessToken":{"brokerType":"b","tokens":[{"accessToken":"t"}]}}`,
		`{"delayedAuth":{"brokerType":"b","refresh":"t"}}`,
	} {
		_, err := events.DecodeConnected([]byte(`{"userId":"u","payload":` + payload + `}`))
		require.Error(t, err, payload)
	}
}

func TestBareObjects(t *testing.T) {
	for _, body := range []string{accessTokenForm, delayedAuthForm} {
		wrapped, err := events.DecodeConnected([]byte(body))
		require.NoError(t, err)
		c, err := events.DecodeConnected([]byte(bare(t, body)))
		require.NoError(t, err)
		require.Equal(t, wrapped, c)
		require.NotEqual(t, body, bare(t, body))
	}
}
