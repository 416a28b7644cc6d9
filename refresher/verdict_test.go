package refresher_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
)

var (
	envelopeWords = []string{
		"", "ok", "serverFailure", "permissionDenied", "badRequest", "notFound", "conflict", "tooManyRequest",
		"locked", "unavailableForLegalReasons", "unauthorized", "somethingNew",
	}
	contentWords = []string{"", "succeeded", "failed", "mfaRequired", "somethingNew"}
	// errorTypes by what they blame.
	errorTypes = map[string][]string{
		"nobody":      {"", "badRequest", "BadRequest", "bad_request", "somethingNew"},
		"the token":   {"unauthorized", "invalidToken", "invalid_grant", "expiredRefreshToken", "sessionExpired", "loginRequired", "invalidCredentials"},
		"the request": {"missingField", "invalidField", "MissingField", "invalid_field", "missingAccessToken", "invalidParameter", "validationError", "invalidRequest", "unsupportedType"},
		"nothing yet": {"serverFailure", "tooManyRequest", "conflict", "locked", "permissionDenied", "serviceUnavailable", "institutionTimeout", "internalError", "unavailableForLegalReasons"},
	}
)

// Whatever the four readings of an answer are: a grant is given up only if none of
// them leaves it a chance.
func TestTheReadingThatGivesUpLeastWins(t *testing.T) {
	t.Parallel()
	refusing := map[int]bool{400: true, 401: true, 404: true, 410: true, 422: true}
	for status := 200; status < 600; status++ {
		for _, envelope := range envelopeWords {
			for _, content := range contentWords {
				for blamed, kinds := range errorTypes {
					for _, kind := range kinds {
						name := fmt.Sprintf("HTTP %d, status %q, content %q, errorType %q", status, envelope, content, kind)
						f := refresher.Said(status, true, envelope, content, kind, "")
						refusal := (status < 300 || refusing[status]) && blamed != "nothing yet" && content != "succeeded" &&
							(envelope == "badRequest" || envelope == "notFound" || envelope == "unauthorized" ||
								status < 300 && (envelope == "" || envelope == "ok") && content == "failed" ||
								envelope == "" && kind != "" && refusing[status] && status != 401)
						switch f.Class {
						case refresher.Dead, refresher.BadRequest:
							require.True(t, refusal && status != 401 && content != "mfaRequired", name)
							require.Equal(t, blamed == "the request", f.Class == refresher.BadRequest, name)
						case refresher.Denied:
							require.Equal(t, 401, status, name)
						case refresher.MustAct:
							require.Equal(t, "mfaRequired", content, name)
							require.True(t, refusal || status < 300 && (envelope == "" || envelope == "ok"), name)
						case refresher.RateLimited:
							require.True(t, status == 429 || envelope == "tooManyRequest" || kind == "tooManyRequest", name)
						case refresher.Unlawful:
							require.True(t, status == 451 || envelope == "unavailableForLegalReasons" || kind == "unavailableForLegalReasons", name)
						default:
							require.Equal(t, refresher.Transient, f.Class, name)
							require.False(t, refusal, name)
						}
						require.True(t, !f.Ambiguous || f.Class == refresher.Transient, name)
						require.NotContains(t, f.Detail, "somethingNew", "words that are not known are not repeated")
						unreadable := refresher.Said(status, false, envelope, content, kind, "")
						require.False(t, unreadable.Refusal() && status != 401, name)
					}
				}
			}
		}
	}
}

// The published example of a refused token, and its neighbours.
func TestARefusedTokenIsToldFromARefusedRequest(t *testing.T) {
	answer := func(errorType string) string {
		return `{"status":"badRequest","message":"Unauthorized token","displayMessage":"Log in again.","errorHash":"5f3a-B_9",` + errorType + `"content":null}`
	}
	for given, want := range map[string]refresher.Failure{
		`"errorType":"badRequest",`:                      {Class: refresher.Dead, Reason: events.ReasonRejected, ErrorType: "badRequest"},
		`"errorType":"BadRequest",`:                      {Class: refresher.Dead, Reason: events.ReasonRejected, ErrorType: "BadRequest"},
		`"errorType":"unauthorized",`:                    {Class: refresher.Dead, Reason: events.ReasonRejected, ErrorType: "unauthorized"},
		`"errorType":null,`:                              {Class: refresher.Dead, Reason: events.ReasonRejected},
		`"errorType":"",`:                                {Class: refresher.Dead, Reason: events.ReasonRejected},
		`"errorType":7,`:                                 {Class: refresher.Dead, Reason: events.ReasonRejected},
		`"errorType":{"a":["b"]},`:                       {Class: refresher.Dead, Reason: events.ReasonRejected},
		``:                                               {Class: refresher.Dead, Reason: events.ReasonRejected},
		`"errorType":"missingField",`:                    {Class: refresher.BadRequest, Reason: events.ReasonBadRequest, ErrorType: "missingField"},
		`"errorType":"InvalidField",`:                    {Class: refresher.BadRequest, Reason: events.ReasonBadRequest, ErrorType: "InvalidField"},
		`"errorType":"not a word",`:                      {Class: refresher.Dead, Reason: events.ReasonRejected},
		`"errorType":"canary-refresh",`:                  {Class: refresher.Dead, Reason: events.ReasonRejected},
		`"errorType":"x-canary-refresh",`:                {Class: refresher.Dead, Reason: events.ReasonRejected},
		`"errorType":"anary-acces",`:                     {Class: refresher.Dead, Reason: events.ReasonRejected},
		`"errorType":"` + strings.Repeat("x", 65) + `",`: {Class: refresher.Dead, Reason: events.ReasonRejected},
	} {
		want.Detail, want.ErrorHash = "HTTP 400, status badRequest", "5f3a-B_9"
		got := *refused(t, meshAnswering(t, 400, answer(given)))
		got.AccessTokenUnwanted = false // TestARequestWithTheAccessTokenLacksNothing
		require.Equal(t, want, got, given)
	}
}

// The words of error types, whoever they blame.
func TestWhomAnErrorTypeBlames(t *testing.T) {
	for class, kinds := range map[refresher.Class][]string{
		refresher.RateLimited: {"rateLimit", "rateLimitError", "throttled", "tooManyAttempts", "tooManyRequestsError", "quotaExceeded"},
		refresher.Transient: {
			"institutionDown", "institutionError", "brokerError", "gatewayError", "networkError", "connectionError", "upstreamError", "tryAgain",
			"outage", "unknownError", "unexpectedError", "serviceUnavailable", "requestTimeout",
		},
		refresher.BadRequest: {
			"missingField", "invalidField", "invalidInput", "invalidValue", "invalidType", "invalidBrokerType", "invalidProperty", "outOfRange",
			"lengthExceeded", "typeMismatch", "deserializationError", "invalidMetadata", "incompleteData", "missingAccessToken",
		},
		refresher.Denied: {"invalidClient", "invalidClientSecret", "unauthorizedClient", "invalid_client"},
		refresher.Dead: {
			"badRequest", "invalidToken", "invalidGrant", "tokenExpired", "refreshTokenRevoked", "unauthorized", "userActionRequired",
			"consentRequired", "missingConsent", "missingPermissions",
		},
	} {
		for _, kind := range kinds {
			require.Equal(t, class, refresher.Said(400, true, "badRequest", "", kind, "").Class, kind)
		}
	}
}

// What is refused may lack the access token only where that did not go along.
func TestARequestWithTheAccessTokenLacksNothing(t *testing.T) {
	mesh := meshAnswering(t, 400, `{"status":"badRequest"}`)
	require.False(t, refused(t, mesh).AccessTokenMissing)
	without := request
	without.AccessToken = text("")
	_, err := mesh.Refresh(t.Context(), without)
	require.True(t, refresher.AsFailure(err).AccessTokenMissing)
	require.False(t, refresher.AsFailure(err).AccessTokenUnwanted)
	require.True(t, refused(t, mesh).AccessTokenUnwanted)
	require.False(t, refused(t, mesh).AskedForRefreshToken)
	for answer, want := range map[string]bool{`{"status":"badRequest","errorType":"badRequest"}`: true, `{"status":"badRequest","errorType":"invalidField"}`: true, `{"status":"locked"}`: false} {
		renewing := request
		renewing.CreateNewRefreshToken = true
		_, err := meshAnswering(t, 400, answer).Refresh(t.Context(), renewing)
		require.Equal(t, want, refresher.AsFailure(err).AskedForRefreshToken, answer)
	}
}

// Only words for programs are kept, and no part of a token.
func TestWhatIsKeptOfAnErrorIsAWord(t *testing.T) {
	for hash, want := range map[string]string{
		"0123456789abcdef": "0123456789abcdef", "A_b-9": "A_b-9", strings.Repeat("f", 64): strings.Repeat("f", 64),
		"": "", strings.Repeat("f", 65): "", "two words": "", "a.b": "", "a=b": "", "é": "", "a\n": "", "{}": "",
		"canary-refresh": "", "canary-trade": "", "rejected-canary-r": "", "CANARY-REF": "", "xcanary-refrx": "", "canary-": "", "c": "",
	} {
		f := refused(t, meshAnswering(t, 200, fmt.Sprintf(`{"status":"notFound","errorHash":%q}`, hash)))
		require.Equal(t, want, f.ErrorHash, "%q", hash)
		require.NotContains(t, f.Error(), "canary")
	}
}

// A 401 is that of the credentials only where they are refused without a token as
// well.
func TestWhose401ItIs(t *testing.T) {
	for name, c := range map[string]struct {
		status int // of GET /api/v1/status; 0: it hangs up
		class  refresher.Class
		reason events.Reason
		body   string
	}{
		"the credentials are refused too": {401, refresher.Denied, "", ""},
		"they are good":                   {200, refresher.Dead, events.ReasonRejected, ""},
		"good, and nothing to say":        {204, refresher.Dead, events.ReasonRejected, ""},
		"a firewall stands before it":     {403, refresher.Transient, "", ""},
		"there is no such call":           {404, refresher.Transient, "", ""},
		"it fails":                        {500, refresher.Transient, "", ""},
		"too many requests":               {429, refresher.Transient, "", ""},
		"it leads elsewhere":              {302, refresher.Transient, "", ""},
		"the connection breaks":           {0, refresher.Transient, "", ""},
		"it says that it is fine":         {200, refresher.Dead, events.ReasonRejected, `{"status":"Ok","message":""}`},
		"it says that they are refused":   {200, refresher.Denied, "", `{"status":"unauthorized","errorType":"unauthorized"}`},
		"it says that it fails":           {200, refresher.Transient, "", `{"status":"serverFailure"}`},
		"it says that it forbids it":      {200, refresher.Transient, "", `{"status":"permissionDenied"}`},
		"it says that something is wrong": {200, refresher.Transient, "", `{"status":"ok","errorType":"badRequest"}`},
		"a page in its place":             {200, refresher.Transient, "", "<html>Welcome</html>"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				asked.Add(1)
				if r.URL.Path != "/api/v1/status" || r.Header.Get("X-Client-Id") != "client" || r.Header.Get("X-Client-Secret") != "canary-client-secret" || r.ContentLength != 0 {
					w.WriteHeader(499)
					return
				}
				if c.status == 0 {
					panic(http.ErrAbortHandler)
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			t.Cleanup(server.Close)
			f := refused(t, newMesh(t, server.URL))
			require.Equal(t, c.class, f.Class)
			require.Equal(t, c.reason, f.Reason)
			require.False(t, f.Ambiguous)
			require.Equal(t, int32(1), asked.Load())
		})
	}
	t.Run("it hangs: both calls together take no longer than one may", func(t *testing.T) {
		release := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			<-release
		}))
		t.Cleanup(server.Close)
		t.Cleanup(func() { close(release) })
		f := refused(t, newMesh(t, server.URL, func(o *refresher.MeshOptions) { o.Timeout = time.Second }))
		require.Equal(t, refresher.Transient, f.Class)
	})
}
