package linkdemo_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/linkdemo"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// backendBench is the sample backend without a worker and without a browser.
type backendBench struct {
	t        *testing.T
	subjects events.Subjects
	nc       *nats.Conn
	js       jetstream.JetStream
	mesh     *meshsim.Server
	url      string
	client   *http.Client
}

func newBackendBench(t *testing.T) *backendBench {
	t.Helper()
	b := &backendBench{t: t, subjects: events.Subjects{Prefix: strings.ReplaceAll(enginestest.Name(t), "_", "-")}}
	url := enginestest.NATS(t).URL()
	var err error
	b.nc, err = nats.Connect(url)
	require.NoError(t, err)
	t.Cleanup(b.nc.Close)
	b.js, err = jetstream.New(b.nc)
	require.NoError(t, err)
	b.mesh, err = meshsim.New(meshsim.Config{Seed: secret.New("seed"), ClientID: "c", ClientSecret: secret.New("s")})
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "page.js"), []byte("// built"), 0o600))
	demo, err := linkdemo.Start(linkdemo.Options{NATSURL: url, Subjects: b.subjects, Mesh: b.mesh, ScriptDir: dir})
	require.NoError(t, err)
	t.Cleanup(demo.Stop)
	b.url = demo.URL
	b.client = b.visitor()
	return b
}

// visitor opens the page as a new browser does.
func (b *backendBench) visitor() *http.Client {
	b.t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(b.t, err)
	client := &http.Client{Jar: jar, Timeout: patience}
	response, err := client.Get(b.url)
	require.NoError(b.t, err)
	defer response.Body.Close()
	require.Equal(b.t, http.StatusOK, response.StatusCode)
	require.Contains(b.t, response.Header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self';")
	return client
}

// post asks the backend, and checks what holds for all its answers.
func (b *backendBench) post(client *http.Client, path, body string, headers ...string) (status int, answer string) {
	b.t.Helper()
	request, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url+path, strings.NewReader(body))
	require.NoError(b.t, err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	require.NoError(b.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(b.t, err)
	require.Equal(b.t, "no-store", response.Header.Get("Cache-Control"))
	return response.StatusCode, string(text)
}

func (b *backendBench) connectedBody(extra string) string {
	b.t.Helper()
	c, err := b.mesh.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", LogoBytes: meshsim.TypicalLogoBytes})
	require.NoError(b.t, err)
	return `{` + extra + `"payload":` + c.Payload.Reveal() + `}`
}

func TestTheSessionSaysWhoIsAsking(t *testing.T) {
	b := newBackendBench(t)
	_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: b.subjects.IntegrationStream(), Subjects: []string{b.subjects.Connected()}})
	require.NoError(t, err)
	sub, err := b.nc.SubscribeSync(b.subjects.Connected())
	require.NoError(t, err)
	users := map[string]bool{}
	for _, client := range []*http.Client{b.client, b.visitor()} {
		before := time.Now()
		body := b.connectedBody(`"userId":"victim","ageMilliseconds":60000,`)
		status, answer := b.post(client, "/api/connected", body)
		require.Equal(t, http.StatusAccepted, status, answer)
		msg, err := sub.NextMsg(patience)
		require.NoError(t, err)
		c, err := events.DecodeConnected(msg.Data)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(c.UserID, "visitor-"), c.UserID)
		require.WithinRange(t, c.ConnectedAt, before.Add(-time.Minute-time.Millisecond), time.Now().Add(-time.Minute))
		users[c.UserID] = true

		// The page's next try is the same connect.
		status, answer = b.post(client, "/api/connected", strings.Replace(body, "60000", "50000", 1))
		require.Equal(t, http.StatusAccepted, status, answer)
		msg, err = sub.NextMsg(patience)
		require.NoError(t, err)
		again, err := events.DecodeConnected(msg.Data)
		require.NoError(t, err)
		require.Equal(t, c.ConnectedAt, again.ConnectedAt)
	}
	require.Len(t, users, 2)

	require.Equal(t, http.StatusUnauthorized, first(b.post(http.DefaultClient, "/api/tokens", `{}`)), "no cookie")
	require.Equal(t, http.StatusForbidden, first(b.post(b.client, "/api/tokens", `{}`, "Sec-Fetch-Site", "cross-site")), "another site's request")
	require.Equal(t, http.StatusOK, first(b.post(b.client, "/api/leave", `{}`)))
	require.Equal(t, http.StatusUnauthorized, first(b.post(b.client, "/api/tokens", `{}`)), "after leaving")
}

func first(status int, _ string) int { return status }

func TestConnectionsThatAreRefused(t *testing.T) {
	b := newBackendBench(t)
	for name, c := range map[string]struct {
		body string
		want int
	}{
		"no JSON":         {`{"payload":`, http.StatusBadRequest},
		"no payload":      {`{}`, http.StatusBadRequest},
		"not a payload":   {`{"payload":{"accessToken":{"brokerType":""}}}`, http.StatusBadRequest},
		"a negative age":  {b.connectedBody(`"ageMilliseconds":-1,`), http.StatusBadRequest},
		"older than ever": {b.connectedBody(`"ageMilliseconds":90000000000,`), http.StatusBadRequest},
		"too large":       {`{"payload":"` + strings.Repeat("x", 1<<20) + `"}`, http.StatusRequestEntityTooLarge},
		// No stream is there to take it: the page must try again.
		"not stored": {b.connectedBody(""), http.StatusServiceUnavailable},
	} {
		status, answer := b.post(b.client, "/api/connected", c.body)
		require.Equal(t, c.want, status, "%s: %s", name, answer)
	}
}

func TestWhatIsSaidInPlaceOfTokens(t *testing.T) {
	b := newBackendBench(t)
	status, answer := b.post(b.client, "/api/tokens", `{}`)
	require.Equal(t, http.StatusServiceUnavailable, status, "no worker")
	require.JSONEq(t, `{"code":"busy"}`, answer)
	require.Equal(t, http.StatusServiceUnavailable, first(b.post(b.client, "/api/accounts", `{}`)))

	type reply struct{ code, body string }
	var next atomic.Pointer[reply]
	_, err := b.nc.Subscribe(b.subjects.TokenGetAll(), func(m *nats.Msg) {
		answer, with := nats.NewMsg(m.Reply), next.Load()
		answer.Data = []byte(with.body)
		if with.code != "" {
			answer.Header.Set("Nats-Service-Error", with.code)
		}
		_ = m.RespondMsg(answer)
	})
	require.NoError(t, err)
	require.NoError(t, b.nc.Flush())
	for _, c := range []struct {
		code, body string
		want       int
		accounts   string
	}{
		{events.CodeUnknownUser, `{"code":"unknown_user"}`, 404, `{"accounts":[],"unavailable":[]}`},
		{
			events.CodeExpired, `{"code":"expired","unavailable":[{"accountId":"a","brokerType":"b","grantId":"g","code":"expired"}]}`, 410,
			`{"accounts":[],"unavailable":[{"accountId":"a","brokerType":"b","grantId":"g","code":"expired"}]}`,
		},
		{events.CodeMustAct, `not JSON`, 409, `{"code":"must_act"}`},
		{"a code from the future", `{}`, 500, `{"code":"a code from the future"}`},
		{"", `not a reply`, 500, `{"code":"internal"}`},
		{
			"", `{"accessTokens":[{"accountId":"a","accountName":"A","accessToken":"the-token","brokerType":"b","brokerName":"B"}],"expiries":[{"accountId":"a","grantId":"g"}]}`, 200,
			`{"accounts":[{"accountId":"a","accountName":"A","brokerName":"B"}],"unavailable":[]}`,
		},
	} {
		next.Store(&reply{c.code, c.body})
		status, answer := b.post(b.client, "/api/tokens", `{}`)
		require.Equal(t, c.want, status, answer)
		if status == http.StatusOK {
			require.JSONEq(t, c.body, answer)
		}
		_, answer = b.post(b.client, "/api/accounts", `{}`)
		require.JSONEq(t, c.accounts, answer)
	}
}

func TestLinkKnowsItsSessions(t *testing.T) {
	b := newBackendBench(t)
	_, answer := b.post(b.client, "/api/link-token", `{}`)
	var out struct {
		LinkToken []byte `json:"linkToken"` // base64, as JSON has bytes
	}
	require.NoError(t, json.Unmarshal([]byte(answer), &out))
	address := string(out.LinkToken)
	origin, query, found := strings.Cut(address, "/?")
	require.True(t, found, "the token is an address")
	require.NotEqual(t, b.url, origin)

	page, err := http.Get(address)
	require.NoError(t, err)
	defer page.Body.Close()
	require.Contains(t, page.Header.Get("Content-Security-Policy"), "frame-ancestors "+b.url)

	b.url = origin
	require.Equal(t, http.StatusOK, first(b.post(http.DefaultClient, "/connect?"+query, `{"brokerType":"binance"}`)))
	require.Equal(t, http.StatusUnauthorized, first(b.post(http.DefaultClient, "/connect?session=guessed", `{"brokerType":"binance"}`)))
	require.Equal(t, http.StatusNotFound, first(b.post(http.DefaultClient, "/connect?"+query, `{"brokerType":"nobody"}`)))
	require.Equal(t, http.StatusBadRequest, first(b.post(http.DefaultClient, "/connect?"+query, `{`)))
	require.Equal(t, http.StatusBadRequest, first(b.post(http.DefaultClient, "/transfer?"+query, `{`)))
	require.Equal(t, http.StatusConflict, first(b.post(http.DefaultClient, "/transfer?"+query, `{"accessToken":"made up"}`)))
	require.NoError(t, b.mesh.Close())
	require.Equal(t, http.StatusInternalServerError, first(b.post(http.DefaultClient, "/connect?"+query, `{"brokerType":"binance"}`)))
}

func TestStartWithoutWhatItNeeds(t *testing.T) {
	_, err := linkdemo.Start(linkdemo.Options{ScriptDir: t.TempDir()})
	require.ErrorIs(t, err, linkdemo.ErrNotBuilt)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "page.js"), nil, 0o600))
	_, err = linkdemo.Start(linkdemo.Options{ScriptDir: dir, NATSURL: "nats://127.0.0.1:1"})
	require.ErrorContains(t, err, "connecting to NATS")
	_, err = linkdemo.Start(linkdemo.Options{ScriptDir: dir, NATSURL: enginestest.NATS(t).URL(), PagePort: -1})
	require.ErrorContains(t, err, "listening for the page")
}
