package events_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

func TestTokenRequest(t *testing.T) {
	r, err := events.DecodeTokenRequest([]byte(tokenRequestBody))
	require.NoError(t, err)
	sixty := int64(60)
	require.Equal(t, events.TokenRequest{UserID: "user-1", BrokerType: "coinbase", AccountID: "acc-1", MinTTLSeconds: &sixty}, r)

	for _, body := range []string{`{"userId":"u"}`, `{"userId":"\u0075","minTTLSeconds":null,"\u0073ealTo":null}`} {
		r, err := events.DecodeTokenRequest([]byte(body))
		require.NoError(t, err)
		require.Equal(t, events.TokenRequest{UserID: "u"}, r, body)
	}
	for _, ttl := range []int64{0, 3153600000} {
		r, err := events.DecodeTokenRequest(fmt.Appendf(nil, `{"userId":"u","minTTLSeconds":%d}`, ttl))
		require.NoError(t, err)
		require.Equal(t, ttl, *r.MinTTLSeconds)
	}
}

func TestRefusedTokensInARequest(t *testing.T) {
	named := func(n int) string {
		return `{"userId":"u","refused":[` + strings.TrimSuffix(strings.Repeat(`{"grantId":"g","version":3},`, n), ",") + `]}`
	}
	r, err := events.DecodeTokenRequest([]byte(named(events.MaxRefused)))
	require.NoError(t, err)
	require.Len(t, r.Refused, events.MaxRefused)
	require.Equal(t, events.RefusedToken{GrantID: "g", Version: 3}, r.Refused[0])
	for _, none := range []string{`{"userId":"u","refused":null}`, `{"userId":"u","refused":[]}`} {
		r, err := events.DecodeTokenRequest([]byte(none))
		require.NoError(t, err)
		require.Empty(t, r.Refused)
	}
	for name, body := range map[string]string{
		"too many": named(events.MaxRefused + 1), "no list": `{"userId":"u","refused":{"grantId":"g","version":1}}`, "no object": `{"userId":"u","refused":["g"]}`,
		"null": `{"userId":"u","refused":[null]}`, "no grant": `{"userId":"u","refused":[{"version":1}]}`, "no version": `{"userId":"u","refused":[{"grantId":"g"}]}`,
		"version 0": `{"userId":"u","refused":[{"grantId":"g","version":0}]}`, "a text": `{"userId":"u","refused":[{"grantId":"g","version":"1"}]}`,
		"a fraction": `{"userId":"u","refused":[{"grantId":"g","version":1.5}]}`, "long": `{"userId":"u","refused":[{"grantId":"` + strings.Repeat("g", 129) + `","version":1}]}`,
	} {
		_, err := events.DecodeTokenRequest([]byte(body))
		var invalid *events.InvalidError
		require.ErrorAs(t, err, &invalid, name)
	}
}

func TestAReplyNamesWhatToReport(t *testing.T) {
	require.Equal(t, events.RefusedToken{GrantID: "g", Version: 7}, events.TokenExpiry{AccountID: "a", GrantID: "g", Version: 7}.Refused())
}

func TestWhatGoEncodesIsATokenRequest(t *testing.T) {
	zero := int64(0)
	want := events.TokenRequest{UserID: "ü.*", BrokerType: "b", MinTTLSeconds: &zero, Refused: []events.RefusedToken{{GrantID: "g", Version: 1}}}
	b, err := json.Marshal(want)
	require.NoError(t, err)
	got, err := events.DecodeTokenRequest(b)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// tokenReplies generates replies as the worker may give them.
var tokenReplies = rapid.Custom(func(t *rapid.T) events.TokenReply {
	text := rapid.String()
	end := rapid.Map(rapid.Int64Range(0, 253402300799), func(s int64) *time.Time {
		if s%3 == 0 {
			return nil
		}
		at := time.Unix(s, s%1000*1e6).UTC()
		return &at
	})
	r := events.TokenReply{AccessTokens: []events.IntegrationAccessToken{}, Expiries: []events.TokenExpiry{}}
	for range rapid.IntRange(0, 4).Draw(t, "tokens") {
		id := text.Draw(t, "account")
		r.AccessTokens = append(r.AccessTokens, events.IntegrationAccessToken{
			AccountID: id, AccountName: text.Draw(t, "name"), AccessToken: secret.New(rapid.StringN(1, -1, -1).Draw(t, "token")),
			BrokerType: text.Draw(t, "type"), BrokerName: text.Draw(t, "broker"),
		})
		r.Expiries = append(r.Expiries, events.TokenExpiry{
			AccountID: id, GrantID: text.Draw(t, "grant"), ExpiresAt: end.Draw(t, "access"), RefreshTokenExpiresAt: end.Draw(t, "refresh"),
			Version: rapid.Int64Range(0, 1<<53).Draw(t, "version"), ObtainedAt: end.Draw(t, "obtained"),
			RefreshFailing: rapid.SampledFrom([]*events.RefreshFailing{nil, {Reason: text.Draw(t, "reason")}, {Since: end.Draw(t, "since"), Reason: "transient"}}).Draw(t, "failing"),
		})
	}
	for range rapid.IntRange(0, 2).Draw(t, "unavailable") {
		r.Unavailable = append(r.Unavailable, events.UnavailableAccount{
			AccountID: text.Draw(t, "account"), BrokerType: text.Draw(t, "type"), GrantID: text.Draw(t, "grant"),
			Code: rapid.SampledFrom(codes).Draw(t, "code"), Reason: rapid.SampledFrom(append(reasons, "")).Draw(t, "reason"),
		})
	}
	for range rapid.IntRange(0, 2).Draw(t, "refused") {
		r.Refused = append(r.Refused, events.RefusedResult{
			GrantID: text.Draw(t, "grant"), Version: rapid.Int64().Draw(t, "version"), Outcome: rapid.SampledFrom(events.RefusedOutcomes).Draw(t, "outcome"),
			RetryAfterSeconds: rapid.Int64Range(0, 1000).Draw(t, "retry after"),
		})
	}
	return r
})

var codes = []string{
	events.CodeBadRequest, events.CodeForbidden, events.CodeUnknownUser, events.CodeMustAct,
	events.CodeExpired, events.CodeInternal, events.CodeBusy,
}

func TestEveryCodeHasItsNumber(t *testing.T) {
	require.Len(t, events.CodeNumber, len(codes))
	for _, code := range codes {
		require.Regexp(t, `^[45]\d\d$`, events.CodeNumber[code], code)
	}
}

func TestTokenReplyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := tokenReplies.Draw(t, "reply")
		b, err := want.Encode()
		require.NoError(t, err)
		got, err := events.DecodeTokenReply(b)
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func TestTokenReplyIsReadableByTheLinkSDK(t *testing.T) {
	end := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	b, err := events.TokenReply{
		AccessTokens: []events.IntegrationAccessToken{{AccountID: "a", AccountName: "n", AccessToken: secret.New("<t&k>"), BrokerType: "b", BrokerName: "B"}},
		Expiries:     []events.TokenExpiry{{AccountID: "a", GrantID: "g", ExpiresAt: &end}},
	}.Encode()
	require.NoError(t, err)
	require.JSONEq(t, `{
		"accessTokens": [{"accountId": "a", "accountName": "n", "accessToken": "<t&k>", "brokerType": "b", "brokerName": "B"}],
		"expiries": [{"accountId": "a", "grantId": "g", "expiresAt": "2031-05-06T07:08:09Z"}]
	}`, string(b))
}

func TestAnEmptyTokenReplyHasArrays(t *testing.T) {
	b, err := events.TokenReply{}.Encode()
	require.NoError(t, err)
	require.JSONEq(t, `{"accessTokens": [], "expiries": []}`, string(b))
}

func TestOnlyEncodeRevealsTheTokensOfAReply(t *testing.T) {
	r := events.TokenReply{AccessTokens: []events.IntegrationAccessToken{{AccountID: "a", AccessToken: secret.New(canary)}}}
	b, err := json.Marshal(r)
	require.NoError(t, err)
	p, err := json.Marshal(&r)
	require.NoError(t, err)
	require.NotContains(t, string(b)+string(p)+fmt.Sprintf("%v %+v %#v", r, r, r), canary)

	b, err = r.Encode()
	require.NoError(t, err)
	require.Contains(t, string(b), canary)
}
