package worker_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/operator"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// reader is somebody at the operator's page, and all that was shown to him.
type reader struct {
	*harness
	base   string
	client *http.Client
	shown  bytes.Buffer
}

var adminLine = regexp.MustCompile(`"admin listener".*?"address":"([^"]+)"`)

// adminAddress is where the worker started last listens.
func (h *harness) adminAddress() string {
	h.t.Helper()
	all := adminLine.FindAllStringSubmatch(h.logs.String(), -1)
	require.NotEmpty(h.t, all)
	_, port, err := net.SplitHostPort(all[len(all)-1][1])
	require.NoError(h.t, err)
	return net.JoinHostPort("127.0.0.1", port)
}

func (h *harness) reader() *reader {
	return &reader{harness: h, base: "http://" + h.adminAddress(), client: &http.Client{}}
}

// do sends a request; change may alter it.
func (r *reader) do(method, path, body string, change func(*http.Request)) (status int, answer string, header http.Header) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.ctx, method, r.base+path, strings.NewReader(body))
	require.NoError(r.t, err)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	if change != nil {
		change(req)
	}
	res, err := r.client.Do(req)
	require.NoError(r.t, err)
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	require.NoError(r.t, err)
	r.shown.Write(got)
	fmt.Fprint(&r.shown, res.Header)
	return res.StatusCode, string(got), res.Header
}

func (r *reader) get(path string) (int, string) {
	r.t.Helper()
	status, body, _ := r.do(http.MethodGet, path, "", nil)
	return status, body
}

func (r *reader) post(path, body string) (int, string) {
	r.t.Helper()
	status, answer, _ := r.do(http.MethodPost, path, body, nil)
	return status, answer
}

// read reads what must be there.
func (r *reader) read(path string, into any) {
	r.t.Helper()
	status, body := r.get(path)
	require.Equal(r.t, http.StatusOK, status, body)
	require.NoError(r.t, json.Unmarshal([]byte(body), into))
}

func (r *reader) overview() (o operator.Overview) {
	r.t.Helper()
	r.read("/api/overview", &o)
	return o
}

type letterShown struct {
	Sequence uint64
	ID       string
	Reason   string
}

func (r *reader) letters(query string) (out struct {
	Letters []letterShown
	Next    uint64
},
) {
	r.t.Helper()
	r.read("/api/dead-letters"+query, &out)
	return out
}

func TestTheOperatorsPage(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker("LATCHKEY_WORKER_ID=one", "LATCHKEY_ADMIN_LISTEN=127.0.0.1:0")
	r := h.reader()
	const hostile = `<img src=x onerror=alert(1)>"'&/../?*.>`
	secrets := []string{stack.ClientSecret}
	for user, c := range map[string]meshsim.Connection{
		"alice": h.issue("coinbase", "a1"), hostile: h.issueSpec(meshsim.ConnectSpec{BrokerType: "kraken", Accounts: []meshsim.Account{{ID: "x", Name: "<script>alert(2)</script>"}}}),
	} {
		h.publishConnected(user, c, time.Time{})
		for _, a := range c.Accounts {
			secrets = append(secrets, a.AccessToken.Reveal(), a.RefreshToken.Reveal())
		}
	}
	id := h.event(events.TokenStored, "alice").Data.GrantID
	h.event(events.TokenStored, hostile)
	h.connectAged("mfa", due, spec("gemini"), "m", meshsim.MFARequired())
	stuck := h.event(events.TokenExpiring, "mfa").Data.GrantID
	token := h.issue("coinbase", "lost").Accounts[0].AccessToken.Reveal()
	secrets = append(secrets, token)
	h.publish(h.subjects.Connected(), `{"userId":"","payload":"`+token+`"}`)
	h.deadLetters(1)

	t.Run("the page and what belongs to it", func(t *testing.T) {
		r := &reader{harness: h.in(t), base: r.base, client: r.client}
		status, page, header := r.do(http.MethodGet, "/", "", nil)
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "text/html; charset=utf-8", header.Get("Content-Type"))
		require.Contains(t, header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'")
		require.NotContains(t, header.Get("Content-Security-Policy"), "unsafe")
		require.Equal(t, "no-store", header.Get("Cache-Control"))
		require.NotRegexp(t, `(?i)\son\w+=|<style|style=|https?://`, page, "nothing inline, nothing from outside")
		for _, asset := range regexp.MustCompile(`(?:src|href)="\./([^"]*)"`).FindAllStringSubmatch(page, -1) {
			status, _ := r.get("/" + asset[1])
			require.Equal(t, http.StatusOK, status, asset[1])
		}
		for _, path := range []string{"/assets/", "/grants/", "/grants/a/b", "/assets/none.js", "/assets/..%2foperator.go", "/api/nothing", "/api/", "/other"} {
			status, _ := r.get(path)
			require.Equal(t, http.StatusNotFound, status, path)
		}
	})

	o := r.overview()
	require.Equal(t, "one", o.WorkerID)
	require.Empty(t, o.Stock.Problem)
	require.EqualValues(t, 2, o.Stock.Value.ByState[store.Active])
	require.EqualValues(t, 1, o.Stock.Value.ByState[store.MustAct])
	require.Len(t, o.Stock.Value.Brokers, 3)
	due := int64(0)
	for _, n := range o.Schedule.Value.Due {
		due += n
	}
	require.EqualValues(t, 3, due+o.Overdue.Value.Grants)
	require.Len(t, o.Queues.Value, 5)
	require.EqualValues(t, 1, o.Letters.Value)
	require.True(t, o.Readiness.Value.Ready)
	require.Len(t, o.Own.Brokers, 1)
	require.Equal(t, "closed", o.Own.Brokers[0].Breaker)
	require.Len(t, o.Workers.Value, 1)
	require.True(t, o.Workers.Value[0].Self)

	r.readsLists(hostile)

	// Finding grants.
	var found struct {
		Grants []struct{ ID, User, State, WhyNot string }
	}
	r.read("/api/grants?user="+url.QueryEscape(hostile), &found)
	require.Len(t, found.Grants, 1)
	require.Equal(t, hostile, found.Grants[0].User)
	r.read("/api/grants?user=nobody", &found)
	require.Empty(t, found.Grants)
	for _, user := range []string{"", "a%00b", "%ff", "a%1Bb", strings.Repeat("x", 301)} {
		status, body := r.get("/api/grants?user=" + user)
		require.Equal(t, http.StatusBadRequest, status, user)
		require.Contains(t, body, "invalid user id")
	}
	none := strings.Repeat("a", 32)
	for _, bad := range []string{none, "x", "%7B%22$ne%22:1%7D", "..%2f..%2f"} {
		for _, path := range []string{"", "/history"} {
			status, _ := r.get("/api/grants/" + bad + path)
			require.Equal(t, http.StatusNotFound, status, bad)
		}
		status, _ := r.post("/api/grants/"+bad+"/refresh", "{}")
		require.Equal(t, http.StatusNotFound, status, bad)
	}

	// What another site could have a browser send does nothing.
	for name, change := range map[string]func(*http.Request){
		"cross-site":   func(q *http.Request) { q.Header.Set("Sec-Fetch-Site", "cross-site") },
		"other origin": func(q *http.Request) { q.Header.Set("Origin", "http://evil.example") },
		"form":         func(q *http.Request) { q.Header.Set("Content-Type", "application/x-www-form-urlencoded") },
		"plain":        func(q *http.Request) { q.Header.Set("Content-Type", "text/plain") },
		"other host":   func(q *http.Request) { q.Host = "evil.example" },
		"like local":   func(q *http.Request) { q.Host = "localhost.evil.example:9464" },
	} {
		for _, path := range []string{"/api/grants/" + id + "/refresh", "/api/dead-letters/1/drop"} {
			status, _, _ := r.do(http.MethodPost, path, `{"id":"x"}`, change)
			require.Contains(t, []int{http.StatusForbidden, http.StatusUnsupportedMediaType, http.StatusMisdirectedRequest}, status, name)
		}
	}
	status, _, _ := r.do(http.MethodGet, "/api/overview", "", func(q *http.Request) { q.Host = "evil.example" })
	require.Equal(t, http.StatusMisdirectedRequest, status)
	for _, host := range []string{"localhost:1", "[::1]:9464", "127.0.0.1"} {
		status, _, _ := r.do(http.MethodGet, "/", "", func(q *http.Request) { q.Host = host })
		require.Equal(t, http.StatusOK, status, host)
	}
	status, _ = r.get("/api/grants/" + id + "/refresh")
	require.Equal(t, http.StatusMethodNotAllowed, status)
	require.Empty(t, h.requests("a1"), "nothing was refreshed")

	// Refreshing.
	status, body := r.post("/api/grants/"+id+"/refresh", "{}")
	require.Equal(t, http.StatusOK, status, body)
	require.Contains(t, body, "refreshed: version 2")
	require.EqualValues(t, 2, h.event(events.TokenRefreshed, "alice").Data.Version)
	status, body = r.post("/api/grants/"+stuck+"/refresh", "{}")
	require.Equal(t, http.StatusConflict, status)
	require.Contains(t, body, "the user must act first (mfa_required)")
	h.eventually(func() bool {
		var past struct{ Events []struct{ Kind string } }
		r.read("/api/grants/"+id+"/history", &past)
		return len(past.Events) == 2 && past.Events[0].Kind == events.TokenRefreshed && past.Events[1].Kind == events.TokenStored
	}, "the history is not what happened")
	require.EqualValues(t, 1, r.overview().Own.Work.Refreshed)
	require.EqualValues(t, 2, r.overview().Own.Lateness.Refreshes+1, "the refresh on demand was not late")

	// Reports of refused tokens.
	h.get(events.TokenRequest{UserID: "alice", Refused: []events.RefusedToken{{GrantID: id, Version: 1}, {GrantID: "another", Version: 1}}})
	reports := map[string]int{}
	for _, b := range r.overview().Own.Refused {
		reports[b.Broker] = b.Reports
	}
	require.Equal(t, map[string]int{"coinbase": 1, "none": 1}, reports)

	// Dead letters.
	letter := r.letters("").Letters[0]
	place := fmt.Sprintf("/api/dead-letters/%d/", letter.Sequence)
	named := fmt.Sprintf(`{"id":%q}`, letter.ID)
	for path, want := range map[string]int{place + "drop": http.StatusNotFound, "/api/dead-letters/99999/drop": http.StatusNotFound, "/api/dead-letters/x/replay": http.StatusBadRequest, "/api/dead-letters/0/replay": http.StatusNotFound} {
		status, body := r.post(path, `{"id":"another"}`)
		require.Equal(t, want, status, path+body)
	}
	for _, bad := range []string{"", "[]", "{", `{"id":` + strings.Repeat(" ", 5000) + `"x"}`} {
		status, _ := r.post(place+"drop", bad)
		require.Equal(t, http.StatusBadRequest, status)
	}
	status, _ = r.get("/api/dead-letters?from=x")
	require.Equal(t, http.StatusBadRequest, status)
	status, body = r.post(place+"replay", named)
	require.Equal(t, http.StatusOK, status, body)
	h.eventually(func() bool {
		l := r.letters("").Letters
		return len(l) == 1 && l[0].ID != letter.ID
	}, "what is replayed fails again")
	status, _ = r.post(place+"replay", named)
	require.Equal(t, http.StatusNotFound, status, "it is gone")
	h.publish(h.subjects.DeadLetter(events.UnknownTag, "forged"), "nonsense")
	h.eventually(func() bool { return len(r.letters("").Letters) == 2 }, "what others wrote is listed")
	for _, l := range r.letters("").Letters {
		if strings.HasPrefix(l.ID, "unreadable") {
			status, body := r.post(fmt.Sprintf("/api/dead-letters/%d/replay", l.Sequence), fmt.Sprintf(`{"id":%q}`, l.ID))
			require.Equal(t, http.StatusConflict, status)
			require.Contains(t, body, "can only be dropped")
		}
		status, body := r.post(fmt.Sprintf("/api/dead-letters/%d/drop", l.Sequence), fmt.Sprintf(`{"id":%q}`, l.ID))
		require.Equal(t, http.StatusOK, status, body)
	}
	require.Empty(t, r.letters("").Letters)
	for range 51 {
		h.publish(h.subjects.DeadLetter(events.UnknownTag, "many"), "nonsense")
	}
	first := r.letters("")
	require.Len(t, first.Letters, 50)
	require.Len(t, r.letters(fmt.Sprintf("?from=%d", first.Next)).Letters, 1)

	for _, l := range append(first.Letters, r.letters(fmt.Sprintf("?from=%d", first.Next)).Letters...) {
		status, body := r.post(fmt.Sprintf("/api/dead-letters/%d/drop", l.Sequence), fmt.Sprintf(`{"id":%q}`, l.ID))
		require.Equal(t, http.StatusOK, status, body)
	}
	r.actsOnLetters()

	// A second worker is seen by the first, with what it did.
	h.worker("LATCHKEY_WORKER_ID=two")
	h.eventually(func() bool {
		o := r.overview()
		total := uint64(0)
		for _, w := range o.Workers.Value {
			total += w.Refreshed
		}
		return len(o.Workers.Value) == 2 && o.Workers.Value[1].ID == "two" && total >= 1
	}, "the other worker is not seen")

	logs := h.logs.String()
	for _, want := range []string{`"action":"grant.refresh","grant":"` + id + `","detail":"127.0.0.1: begun"`, `"detail":"127.0.0.1: refreshed: version 2"`, `"action":"deadletter.replay"`, `"action":"deadletter.drop"`} {
		require.Contains(t, logs, want)
	}
	h.eventually(func() bool {
		recorded := (&onCall{harness: h}).ok("audit", "list", "--action", "operated", "-o", "json")
		return strings.Contains(recorded, "grant.refresh: 127.0.0.1: refreshed: version 2") && strings.Contains(recorded, id) &&
			strings.Contains(recorded, "deadletter.replay") && strings.Contains(recorded, "deadletter.drop")
	}, "the audit log does not hold what was done on the page")
	require.Empty(t, h.stack.Mesh.Ledger().DoubleSpends())
	requireNoSecret(t, slices.Values(secrets), map[string]string{"page": r.shown.String()})
	require.NotContains(t, r.shown.String(), `"sealed"`)

	// Ready or not.
	if h.stack.MongoDB == nil {
		return
	}
	status, body = r.get("/readyz")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "ok\n", body)
	asJSON := func(q *http.Request) { q.Header.Set("Accept", "application/json") }
	_, body, _ = r.do(http.MethodGet, "/readyz", "", asJSON)
	require.JSONEq(t, `{"ready":true,"checks":[{"name":"NATS","ok":true,"needed":true},{"name":"MongoDB","ok":true,"needed":true},{"name":"receiving","ok":true,"needed":true},{"name":"KMS","ok":true,"needed":false}]}`, body)
	h.stack.MongoDB.Stop()
	status, body = r.get("/readyz")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, body, "MongoDB: ")
	status, body, _ = r.do(http.MethodGet, "/readyz", "", asJSON)
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, body, `{"ready":false,`)
	status, _ = r.get("/api/grants?user=alice")
	require.Equal(t, http.StatusServiceUnavailable, status)
}

func TestWhoMaySeeTheOperatorsPage(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker("LATCHKEY_ADMIN_LISTEN=0.0.0.0:0")
	r := h.reader()
	for _, path := range []string{"/", "/api/overview", "/assets/page.js", "/debug/pprof/heap"} {
		status, _ := r.get(path)
		require.Equal(t, http.StatusNotFound, status, path)
	}
	for _, path := range []string{"/", "/grants/x"} {
		_, why := r.get(path)
		require.Contains(t, why, "admin.token is not set")
		require.Contains(t, why, "LATCHKEY_ADMIN_TOKEN_FILE")
	}
	const served = "the operator's page is at / of the admin listener"
	require.NotContains(t, h.logs.String(), served)
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		status, _ := r.get(path)
		require.Equal(t, http.StatusOK, status, path)
	}
	require.Contains(t, h.logs.String(), "the operator's page is not served: admin.listen is not a loopback address, and admin.token is not set")
	w.stop()

	const token = "correct-horse-battery"
	cert, key, pool := selfSigned(t)
	w = h.worker("LATCHKEY_ADMIN_LISTEN=0.0.0.0:0", "LATCHKEY_ADMIN_TOKEN="+token, "LATCHKEY_ADMIN_CERT_FILE="+cert, "LATCHKEY_ADMIN_KEY_FILE="+key, "LATCHKEY_ADMIN_PPROF=true")
	r = h.reader()
	r.base = strings.Replace(r.base, "http://", "https://", 1)
	require.Contains(t, h.logs.String(), served)
	r.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		status, _ := r.get(path)
		require.Equal(t, http.StatusOK, status, path)
	}
	basic := func(password string) func(*http.Request) {
		return func(q *http.Request) { q.SetBasicAuth("ann\x1b", password) }
	}
	bearer := func(token string) func(*http.Request) {
		return func(q *http.Request) { q.Header.Set("Authorization", "Bearer "+token) }
	}
	for range 12 { // to ask without a token is no attempt
		status, _, header := r.do(http.MethodGet, "/", "", nil)
		require.Equal(t, http.StatusUnauthorized, status)
		require.Contains(t, header.Get("WWW-Authenticate"), "Basic")
	}
	for _, with := range []func(*http.Request){basic(token), bearer(token)} {
		for range 12 { // to be right is no attempt either
			status, _, _ := r.do(http.MethodGet, "/api/overview", "", with)
			require.Equal(t, http.StatusOK, status)
		}
	}
	status, _, _ := r.do(http.MethodGet, "/debug/pprof/heap", "", nil)
	require.Equal(t, http.StatusUnauthorized, status)
	for path, want := range map[string]int{
		"allocs": 200, "goroutine?debug=2": 200, "heap": 200, "profile?seconds=1": 200, "trace?seconds=0.01": 200,
		"cmdline": 404, "": 404, "block": 404, "mutex": 404,
	} {
		status, _, _ = r.do(http.MethodGet, "/debug/pprof/"+path, "", basic(token))
		require.Equal(t, want, status, path)
	}
	for path, method := range map[string]string{"/api/grants/" + strings.Repeat("a", 32) + "/refresh": http.MethodPost, "/debug/pprof/heap": http.MethodGet} {
		status, _, _ = r.do(method, path, "{}", func(q *http.Request) {
			basic(token)(q)
			q.Header.Set("Sec-Fetch-Site", "cross-site")
		})
		require.Equal(t, http.StatusForbidden, status, "a browser adds the token by itself")
	}
	go func() {
		q, _ := http.NewRequestWithContext(h.ctx, http.MethodGet, r.base+"/debug/pprof/profile?seconds=3600", nil)
		basic(token)(q)
		if res, err := r.client.Do(q); err == nil {
			res.Body.Close()
		}
	}()
	h.eventually(func() bool {
		_, stacks, _ := r.do(http.MethodGet, "/debug/pprof/goroutine?debug=2", "", basic(token))
		return strings.Contains(stacks, "pprof.Profile(")
	}, "a profile is taken")
	user := h.connect("alice", spec("coinbase"))
	require.NotEmpty(t, user.Accounts)
	id := h.event(events.TokenStored, "alice").Data.GrantID
	status, body, _ := r.do(http.MethodPost, "/api/grants/"+id+"/refresh", "{}", basic(token))
	require.Equal(t, http.StatusOK, status, body)
	require.Contains(t, h.logs.String(), `"detail":"ann� at 127.0.0.1: begun"`)

	seen := map[int]int{}
	for _, wrong := range []string{"", "x", token + "x", token[:20], strings.ToUpper(token), "a", "b", "c", "d", "e", "f", "g", "h"} {
		with := basic(wrong)
		if len(wrong) > 1 {
			with = bearer(wrong)
		}
		path := "/"
		if wrong == "" {
			path = "/debug/pprof/heap"
		}
		status, _, header := r.do(http.MethodGet, path, "", with)
		seen[status]++
		if status == http.StatusTooManyRequests {
			require.NotEmpty(t, header.Get("Retry-After"))
		}
	}
	require.GreaterOrEqual(t, seen[http.StatusUnauthorized], 10)
	require.Positive(t, seen[http.StatusTooManyRequests])
	require.Zero(t, seen[http.StatusOK])
	require.NotContains(t, h.logs.String(), token)
	require.NotContains(t, r.shown.String(), token)
	w.stop() // though somebody takes a profile

	_, err := h.tryWorker("LATCHKEY_ADMIN_LISTEN=127.0.0.1:0", "LATCHKEY_ADMIN_CERT_FILE="+key, "LATCHKEY_ADMIN_KEY_FILE="+cert)
	require.ErrorContains(t, err, "reading admin.cert_file and admin.key_file")
}

// selfSigned makes a certificate for this machine.
func selfSigned(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(certFile, certPEM, 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	pool = x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(certPEM))
	return certFile, keyFile, pool
}
