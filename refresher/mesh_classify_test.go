package refresher_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
)

// newMesh is a client of a server at url.
func newMesh(t *testing.T, url string, change ...func(*refresher.MeshOptions)) *refresher.Mesh {
	o := refresher.MeshOptions{
		URL: url, ClientID: "client", ClientSecret: text("canary-client-secret"), Timeout: time.Minute,
		Now: func() time.Time { return t0 },
	}
	for _, f := range change {
		f(&o)
	}
	return must(refresher.NewMesh(o))
}

var request = refresher.RefreshRequest{
	BrokerType: "coinbase", RefreshToken: text("canary-refresh"), AccessToken: text("canary-access"), TradeToken: text("canary-trade"),
}

// meshAnswering is a client of a server that always gives one answer.
func meshAnswering(t *testing.T, status int, body string, header ...string) *refresher.Mesh {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return newMesh(t, server.URL)
}

// refused makes a call that must fail.
func refused(t *testing.T, m *refresher.Mesh) *refresher.Failure {
	t.Helper()
	_, err := m.Refresh(t.Context(), request)
	var f *refresher.Failure
	require.ErrorAs(t, err, &f)
	return f
}

const tokensContent = `{"status":"succeeded","brokerAccountTokens":[{"account":{"accountId":"one"},"accessToken":"new-access","refreshToken":"new-refresh"}]}`

func body(status, content string) string {
	return fmt.Sprintf(`{"status":%q,"content":%s}`, status, content)
}

func TestClassification(t *testing.T) {
	const sure, ambiguous = false, true
	type want struct {
		class     refresher.Class
		ambiguous bool
		reason    events.Reason
	}
	transient, lost, denied, limited := want{refresher.Transient, sure, ""}, want{refresher.Transient, ambiguous, ""},
		want{refresher.Denied, sure, ""}, want{refresher.RateLimited, sure, ""}
	unlawful, gone := want{refresher.Unlawful, sure, events.ReasonLegal}, want{refresher.Dead, sure, events.ReasonNotFound}
	rejected, mfa := want{refresher.Dead, sure, events.ReasonRejected}, want{refresher.MustAct, sure, events.ReasonMFARequired}
	for _, c := range []struct {
		status int
		body   string
		want   want
	}{
		{200, body("ok", `{"status":"failed"}`), rejected},
		{200, body("ok", `{"status":"mfaRequired"}`), mfa},
		{200, body("ok", `{"status":"succeeded"}`), lost},
		{200, body("ok", `{"status":"succeeded","brokerAccountTokens":[]}`), lost},
		{200, body("ok", `{"status":"somethingNew"}`), lost},
		{200, body("ok", `{}`), lost},
		{200, body("ok", `null`), lost},
		{200, `{}`, lost},
		{200, `[]`, lost},
		{200, `null`, lost},
		{200, ``, lost},
		{200, `not JSON`, lost},
		{200, `{"status":"ok","content":{"sta`, lost},
		{204, ``, lost},
		{200, body("serverFailure", `null`), lost},
		{200, body("permissionDenied", `null`), transient},
		{200, body("badRequest", `null`), rejected},
		{200, body("notFound", `null`), gone},
		{200, body("conflict", `null`), transient},
		{200, body("locked", `null`), transient},
		{200, body("unavailableForLegalReasons", `null`), unlawful},
		{451, `<html>`, unlawful},
		{451, body("badRequest", `null`), unlawful},
		{200, body("somethingNew", `null`), transient},
		{200, body("tooManyRequest", `null`), limited},
		{302, ``, transient},
		{400, body("badRequest", `null`), rejected},
		{400, body("notFound", `null`), gone},
		{400, body("tooManyRequest", `null`), limited},
		{400, body("serverFailure", `null`), lost},
		{400, `{"type":"about:blank","status":400}`, transient},
		{400, `not JSON`, transient},
		{400, ``, transient},
		{401, ``, denied},
		{401, body("badRequest", `null`), denied},
		{401, body("tooManyRequest", `null`), limited},
		{401, body("serverFailure", `null`), lost},
		{403, `<html>`, transient},
		{403, body("badRequest", `null`), transient},
		{404, body("notFound", `null`), gone},
		{404, `not JSON`, transient},
		{408, body("badRequest", `null`), lost},
		{409, body("conflict", `null`), transient},
		{423, body("locked", `null`), transient},
		{429, ``, limited},
		{429, body("badRequest", `null`), limited},
		{500, body("notFound", `null`), lost},
		{500, body("badRequest", `null`), lost},
		{500, body("tooManyRequest", `null`), limited},
		{502, `<html>`, lost},
		{503, ``, lost},
		{504, ``, lost},
	} {
		f := refused(t, meshAnswering(t, c.status, c.body))
		require.Equal(t, c.want, want{f.Class, f.Ambiguous, f.Reason}, "%d %s", c.status, c.body)
		require.True(t, strings.HasPrefix(f.Detail, fmt.Sprintf("HTTP %d", c.status)), f.Detail)
	}
}

// TestTokensCountForMoreThanStatuses: whatever an answer says of itself, what it
// brings is kept.
func TestTokensCountForMoreThanStatuses(t *testing.T) {
	const access, refresh, both = `"accessToken":"new-access"`, `"refreshToken":"new-refresh"`, `"accessToken":"new-access","refreshToken":"new-refresh"`
	m := newMesh(t, "http://mesh")
	for _, status := range []int{200, 201, 302, 400, 401, 403, 404, 408, 409, 429, 451, 500, 502, 599} {
		for _, envelope := range []string{`"status":"ok",`, `"status":"tooManyRequest",`, `"status":"serverFailure",`, `"status":"badRequest",`, `"status":"somethingNew",`, `"status":null,`, `"status":7,`, ``} {
			for _, content := range []string{`"status":"succeeded",`, `"status":"failed",`, `"status":"somethingNew",`, `"status":null,`, ``} {
				for _, tokens := range []string{access, refresh, both} {
					for _, where := range []string{`"brokerAccountTokens":[{%s}]`, `%s`} {
						sent := `{` + envelope + `"content":{` + content + fmt.Sprintf(where, tokens) + `}}`
						m.Answer(status, sent, false)
						a, err := m.Refresh(t.Context(), request)
						require.NoError(t, err, "%d %s", status, sent)
						require.Equal(t, tokens != access, !a.NewRefreshToken().Empty(), "%d %s", status, sent)
						plain := status < 300 && (!strings.Contains(envelope, `:"`) || strings.Contains(envelope, "ok")) && (!strings.Contains(content, `:"`) || strings.Contains(content, "succeeded"))
						require.Equal(t, plain, a.Contradicts == nil, "%d %s", status, sent)
					}
				}
			}
		}
	}
}

// TestEchoesAreNoTokens: an answer that repeats what went out, or what the grant
// has, is judged by its statuses.
func TestEchoesAreNoTokens(t *testing.T) {
	asked := request
	asked.Current = []secret.Text{text("canary-held")}
	for _, tokens := range []string{
		`"refreshToken":"canary-refresh"`, `"accessToken":"canary-access"`, `"accessToken":"canary-held"`,
		`"accessToken":"canary-access","refreshToken":"canary-refresh"`,
	} {
		sent := body("ok", `{"status":"failed","brokerAccountTokens":[{`+tokens+`}],`+tokens+`}`)
		a, err := meshAnswering(t, 200, sent).Refresh(t.Context(), asked)
		require.Error(t, err, sent)
		require.Equal(t, refresher.Dead, refresher.AsFailure(err).Class, sent)
		require.Empty(t, a)
	}
	a, err := meshAnswering(t, 200, body("ok", `{"status":"succeeded","accessToken":"canary-held","expiresInSeconds":60}`)).Refresh(t.Context(), asked)
	require.NoError(t, err, "the same token may be given a longer life")
	require.Equal(t, "canary-held", a.AccessToken.Reveal())
}

// TestAnInterimTokenFinishesNothing: it serves for the request with the user's code.
func TestAnInterimTokenFinishesNothing(t *testing.T) {
	for _, content := range []string{
		`{"status":"mfaRequired","brokerAccountTokens":[{"accessToken":"interim","refreshToken":"new"}]}`,
		`{"status":"mfaRequired","accessToken":"interim","refreshToken":"new"}`,
	} {
		f := refused(t, meshAnswering(t, 200, body("ok", content)))
		require.Equal(t, refresher.MustAct, f.Class)
		require.Equal(t, "interim", f.Interim.Reveal())
		require.Equal(t, "new", f.RefreshToken.Reveal())
	}
	const entries = `"brokerAccountTokens":[{"accessToken":"interim","refreshToken":"new"}]`
	for _, said := range []string{
		`{"status":"ok","content":{"status":"MfaRequired",` + entries + `}}`, `{"status":"ok","content":{"status":"mfa_required",` + entries + `}}`,
		`{"status":"mfaRequired","content":{` + entries + `}}`, `{"status":"badRequest","errorType":"mfaRequired","content":{` + entries + `}}`,
	} {
		for _, status := range []int{200, 400} {
			f := refused(t, meshAnswering(t, status, said))
			require.Equal(t, refresher.MustAct, f.Class, "%d %s", status, said)
			require.Equal(t, "interim", f.Interim.Reveal())
		}
	}
}

// What claims to be packed and is not is read as it came; what is cut off is kept.
func TestAnAnswerThatCannotBeUnpackedIsKept(t *testing.T) {
	a, err := meshAnswering(t, 200, body("ok", tokensContent), "Content-Encoding", "gzip").Refresh(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, "new-refresh", a.NewRefreshToken().Reveal())

	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err = w.Write([]byte(body("ok", tokensContent)))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	whole := packed.String()
	a, err = meshAnswering(t, 200, whole, "Content-Encoding", "gzip").Refresh(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, "new-refresh", a.NewRefreshToken().Reveal())
	f := refused(t, meshAnswering(t, 200, whole[:len(whole)/4], "Content-Encoding", "gzip"))
	require.False(t, f.Answer.Rest.Empty(), "kept for an operator")
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"7":                    7 * time.Second,
		"0":                    0,
		"-5":                   0,
		"":                     0,
		"99999999999999999999": 0,
		"9223372036854775807":  day,
		"86401":                day,
		"soon":                 0,
		"1.5":                  0,
		t0.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		t0.Add(-time.Hour).Format(http.TimeFormat):       0,
		t0.Add(30 * day).Format(http.TimeFormat):         day,
	} {
		for _, status := range []int{429, 503, 409} {
			require.Equal(t, want, refused(t, meshAnswering(t, status, ``, "Retry-After", value)).RetryAfter, "%d %q", status, value)
		}
	}
	require.Zero(t, refused(t, meshAnswering(t, 200, body("notFound", "null"), "Retry-After", "7")).RetryAfter)
}
