package events

import (
	"encoding/json"
	"testing"
	"time"

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
		}
	})
}
