package events

import (
	"encoding/json"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events/secret"
)

func TestRepliesAreEncodedWithAllTheyHold(t *testing.T) {
	text := rapid.OneOf(rapid.Just(""), rapid.String(), rapid.StringMatching(`[<>&"\\\x00-\x7f\x{2028}]{1,8}`), rapid.Just("\xff no UTF-8"))
	end := rapid.Map(rapid.Int64Range(-1e10, 3e11), func(s int64) *time.Time {
		at := time.Unix(s, s%1000*1e6).UTC()
		return &at
	})
	end = rapid.OneOf(end, rapid.Just((*time.Time)(nil)))
	rapid.Check(t, func(t *rapid.T) {
		var r TokenReply
		want := wireReply{AccessTokens: []wireToken{}, Expiries: []TokenExpiry{}}
		for range rapid.IntRange(0, 3).Draw(t, "tokens") {
			w := wireToken{text.Draw(t, "account"), text.Draw(t, "name"), text.Draw(t, "token"), text.Draw(t, "type"), text.Draw(t, "broker"), text.Draw(t, "token id")}
			want.AccessTokens = append(want.AccessTokens, w)
			r.AccessTokens = append(r.AccessTokens, IntegrationAccessToken{w.AccountID, w.AccountName, secret.New(w.AccessToken), w.BrokerType, w.BrokerName, secret.New(w.TokenID)})
		}
		for range rapid.IntRange(0, 3).Draw(t, "expiries") {
			failing := rapid.SampledFrom([]*RefreshFailing{nil, {end.Draw(t, "since"), text.Draw(t, "why")}}).Draw(t, "failing")
			want.Expiries = append(want.Expiries, TokenExpiry{
				text.Draw(t, "account"), text.Draw(t, "grant"), rapid.MapOfN(rapid.OneOf(rapid.Just("a"), rapid.String()), text, 0, 3).Draw(t, "labels"),
				rapid.Int64().Draw(t, "version"), end.Draw(t, "obtained"), end.Draw(t, "access"), end.Draw(t, "refresh"), failing,
			})
		}
		for range rapid.IntRange(0, 3).Draw(t, "refused") {
			want.Refused = append(want.Refused, RefusedResult{
				text.Draw(t, "grant"), rapid.Int64().Draw(t, "version"), text.Draw(t, "outcome"), rapid.Int64Range(0, 100).Draw(t, "retryAfter"),
			})
		}
		for range rapid.IntRange(0, 3).Draw(t, "unavailable") {
			want.Unavailable = append(want.Unavailable, UnavailableAccount{
				text.Draw(t, "account"), text.Draw(t, "type"), text.Draw(t, "grant"), text.Draw(t, "code"), Reason(text.Draw(t, "reason")),
				rapid.Int64Range(0, 100).Draw(t, "retryAfter"),
			})
		}
		r.Expiries, r.Unavailable, r.Refused = want.Expiries, want.Unavailable, want.Refused
		plain, err := json.Marshal(want)
		got, mine := r.Encode()
		require.Equal(t, err == nil, mine == nil, "%v, %v", err, mine)
		if err == nil {
			require.JSONEq(t, string(plain), string(got))
			library, err := jsonv2.Marshal(want, jsontext.AllowInvalidUTF8(true), jsonv2.Deterministic(true))
			require.NoError(t, err)
			require.Equal(t, string(library), string(got), "byte by byte as the JSON package writes it")
		}
	})
}

// Memory that had to grow would leave a copy of the tokens.
func TestTheBodyOfAReplyIsWrittenOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[\x00-\x1f"\\]{0,50}`), rapid.Just("\xff\xff"))
		var r TokenReply
		var texts []TokenTexts
		for range rapid.IntRange(0, 3).Draw(t, "tokens") {
			its := IntegrationAccessToken{AccountID: text.Draw(t, "account"), AccountName: text.Draw(t, "name"), BrokerType: text.Draw(t, "type"), BrokerName: text.Draw(t, "broker")}
			token := text.Draw(t, "token")
			quoted := QuoteToken(secret.New(token), secret.New(text.Draw(t, "token id")))
			require.Equal(t, longest(token), cap(quoted.AccessToken), "other memory than the first")
			r.AccessTokens, texts = append(r.AccessTokens, its), append(texts, quoted)
		}
		body, err := r.EncodeTexts(texts)
		require.NoError(t, err)
		require.LessOrEqual(t, len(body), r.sizeOfTokens(texts)+len(`{"expiries":[]}`))
	})
}
