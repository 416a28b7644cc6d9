package refresher_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// written is an answer as it goes over the wire.
type written struct {
	status int
	body   string
	// tokens are the token strings in the text of it, cut those that were cut off.
	tokens []string
	// escaped: it comes in a form that is not read.
	escaped bool
	// declared is the Content-Length, to break the connection off; 0: that of body.
	declared int
}

// writer draws answers by the types of Mesh's contract.
type writer struct {
	t      *rapid.T
	tokens []string
	n      int
}

func (w *writer) one(label string, of ...string) string {
	return rapid.SampledFrom(of).Draw(w.t, label)
}

// token is one that nobody knows, or one that goes out.
func (w *writer) token() string {
	switch rapid.IntRange(0, 5).Draw(w.t, "token") {
	case 0:
		return "canary-refresh"
	case 1:
		return "canary-access"
	}
	w.n++
	token := fmt.Sprintf("issued-%d-%s", w.n, rapid.StringMatching(`[A-Za-z0-9._~+/-]{8,20}={0,2}`).Draw(w.t, "characters"))
	w.tokens = append(w.tokens, token)
	return token
}

// value is the value of a token: of its type, or not.
func (w *writer) tokenValue() string {
	switch rapid.IntRange(0, 10).Draw(w.t, "value") {
	case 3:
		broken := []func(string) string{
			func(s string) string { return `'` + s + `'` }, func(s string) string { return s }, func(s string) string { return `/**/"` + s + `"` },
			func(s string) string { return `"` + s }, func(s string) string { return `="` + s + `"` }, func(s string) string { return "`" + s + "`" },
			func(s string) string { return `{"value":'` + s + `'}` }, func(s string) string { return `"\x` + s + `"` }, func(s string) string { return "\"\x01" + s + "\"" },
			func(s string) string { return `""` + s + `""` }, func(s string) string { return `[` + s + `]` },
		}
		return rapid.SampledFrom(broken).Draw(w.t, "broken")(w.token())
	case 0:
		return w.one("empty", `null`, `""`, `0`, `7`, `true`, `{}`, `[]`)
	case 1:
		return `[` + quoted(w.token()) + `]`
	case 2:
		return `{"value":` + quoted(w.token()) + `}`
	}
	return quoted(w.token())
}

// object has each member absent, present, or twice, in any order.
func (w *writer) object(members map[string]func() string) string {
	var out []string
	for _, name := range slices.Sorted(mapKeys(members)) {
		for range rapid.SampledFrom([]int{0, 1, 1, 1, 1, 2}).Draw(w.t, name) {
			out = append(out, quoted(w.cased(name))+":"+members[name]())
		}
	}
	return "{" + strings.Join(rapid.Permutation(out).Draw(w.t, "order"), ",") + "}"
}

func mapKeys(m map[string]func() string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (w *writer) cased(name string) string {
	switch rapid.IntRange(0, 11).Draw(w.t, "case") {
	case 0:
		return strings.ToUpper(name[:1]) + name[1:]
	case 1:
		return strings.ToUpper(name)
	}
	return name
}

func (w *writer) odd() string {
	return w.one("odd", `null`, `7`, `-1.5e300`, `"text"`, `[]`, `[1,null]`, `{}`, `{"a":[{}]}`, `false`)
}

func (w *writer) account() string {
	if rapid.IntRange(0, 3).Draw(w.t, "account") == 0 {
		return w.odd()
	}
	return w.object(map[string]func() string{
		"accountId":   func() string { return w.one("id", `"one"`, `"one"`, `"two"`, `"other"`, `null`, `7`, `""`) },
		"accountName": func() string { return w.one("name", `"A name"`, `null`, `7`, `"\ud800"`) },
	})
}

func (w *writer) entry() string {
	if rapid.IntRange(0, 9).Draw(w.t, "entry") == 0 {
		return w.odd()
	}
	return w.object(map[string]func() string{
		"account": w.account, "accessToken": w.tokenValue, "refreshToken": w.tokenValue, "tokenId": w.tokenValue,
	})
}

func (w *writer) entries() string {
	if rapid.IntRange(0, 9).Draw(w.t, "entries") == 0 {
		return w.odd()
	}
	var all []string
	for range rapid.IntRange(0, 3).Draw(w.t, "number") {
		all = append(all, w.entry())
	}
	if len(all) == 1 && rapid.IntRange(0, 4).Draw(w.t, "list") == 0 {
		return all[0]
	}
	return "[" + strings.Join(all, ",") + "]"
}

func (w *writer) content() string {
	if rapid.IntRange(0, 9).Draw(w.t, "content") == 0 {
		return w.odd()
	}
	lifetime := func() string { return w.one("lifetime", `3600`, `"3600"`, `0`, `-1`, `null`, `1e9`, `3600.5`, `{}`) }
	return w.object(map[string]func() string{
		"status": func() string {
			return w.one("status", `"succeeded"`, `"succeeded"`, `"failed"`, `"mfaRequired"`, `"new"`, `null`, `7`)
		},
		"errorMessage":        w.odd,
		"brokerAccountTokens": w.entries,
		"accessToken":         w.tokenValue, "refreshToken": w.tokenValue, "account": w.account,
		"expiresInSeconds": lifetime, "refreshTokenExpiresInSeconds": lifetime,
	})
}

// anyAnswer draws an answer. Those that are cut off hold no token behind the cut.
func anyAnswer(t *rapid.T) written {
	w := &writer{t: t}
	text := w.object(map[string]func() string{
		"status": func() string {
			return w.one("envelope", `"ok"`, `"ok"`, `"serverFailure"`, `"badRequest"`, `"notFound"`, `"tooManyRequest"`, `"locked"`, `"new"`, `null`, `7`)
		},
		"message": w.odd, "displayMessage": w.odd, "errorType": w.odd, "content": w.content,
	})
	out := written{status: rapid.SampledFrom([]int{200, 200, 200, 201, 302, 400, 401, 403, 404, 408, 409, 429, 451, 500, 502, 503}).Draw(t, "HTTP status")}
	names := slices.Sorted(maps.Keys(encodings))
	encoding := rapid.SampledFrom(slices.Concat(names, slices.Sorted(maps.Keys(escapes)), []string{"plain", "plain", "plain"})).Draw(t, "encoding")
	encode, escaped := escapes[encoding]
	if out.escaped = escaped; !escaped {
		encode = encodings[encoding]
	}
	if encoding == "plain" && rapid.Bool().Draw(t, "cut") {
		text = text[:rapid.IntRange(0, len(text)).Draw(t, "at")]
		out.declared = len(text) + rapid.IntRange(0, 1).Draw(t, "declared")*100
	}
	for _, token := range w.tokens {
		if strings.Contains(text, token) {
			out.tokens = append(out.tokens, token)
		}
	}
	out.body = encode(text)
	return out
}

// answering serves one answer after the other.
type answering struct {
	url  string
	mu   sync.Mutex
	next written
	// during, if set, is called before each answer.
	during func()
	// asked is the body of the last request.
	asked string
}

func newAnswering(t *testing.T) *answering {
	a := &answering{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, _ := io.ReadAll(r.Body)
		if a.during != nil {
			a.during()
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.asked = string(asked)
		if a.next.declared > len(a.next.body) {
			w.Header().Set("Content-Length", fmt.Sprint(a.next.declared))
		}
		w.WriteHeader(a.next.status)
		_, _ = io.WriteString(w, a.next.body)
	}))
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

func (a *answering) set(next written) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next = next
}

// requireKept looks for the tokens of an answer in what is kept. What comes in a form
// that is not read is kept as it came.
func requireKept(t require.TestingT, given written, kept map[string]bool, left string) {
	for _, token := range given.tokens {
		require.True(t, kept[token] || strings.Contains(left, token) || given.escaped && strings.Contains(left, given.body), "%s is nowhere, of HTTP %d %q", token, given.status, given.body)
	}
}

// TestNoTokenOfAnAnswerIsLost: whatever an answer looks like, each token in it that
// did not go out is in the token set, or in what becomes a dead letter.
func TestNoTokenOfAnAnswerIsLost(t *testing.T) { rapid.Check(t, losesNoToken) }

func FuzzNoTokenOfAnAnswerIsLost(f *testing.F) { f.Fuzz(rapid.MakeFuzz(losesNoToken)) }

func losesNoToken(t *rapid.T) {
	given := anyAnswer(t)
	m := refresher.NewMesh(refresher.MeshOptions{URL: "http://mesh", Timeout: time.Minute, Now: time.Now})
	m.Answer(given.status, given.body, given.declared > len(given.body))
	kept, left := keptOf(m, given)
	requireKept(t, given, kept, left)
}

// keptOf is what a refresh of a grant with two accounts keeps of an answer.
func keptOf(m *refresher.Mesh, given written) (kept map[string]bool, left string) {
	a, err := m.Refresh(context.Background(), request)
	kept = map[string]bool{}
	if err != nil {
		f := refresher.AsFailure(err)
		kept[f.Interim.Reveal()], kept[f.RefreshToken.Reveal()] = true, true
		return kept, opened(f.Answer.Rest.Reveal())
	}
	g := newGrant(withAccounts("one", "two"))
	set := newTokens("one", "two")
	set.RefreshToken = request.RefreshToken
	set, err = settler(&clock{now: sentAt}, 0).Answered(g, set, a, false, 1, sentAt)
	if err != nil {
		panic(err)
	}
	refresh, other := refresher.Leftover(a, set)
	for _, token := range slices.Concat(tokensOf(set), refresh, other) {
		kept[token.Reveal()] = true
	}
	return kept, opened(a.Rest.Reveal())
}

// opened is what an operator reads of what was left.
func opened(left string) string {
	if packed, ok := strings.CutPrefix(left, "base64: "); ok {
		if text, err := base64.StdEncoding.DecodeString(packed); err == nil {
			return string(text)
		}
	}
	return left
}

func tokensOf(set store.TokenSet) []secret.Text {
	all := append([]secret.Text{set.RefreshToken, set.Interim, set.TradeToken}, set.Spare...)
	for _, account := range set.Accounts {
		all = append(all, account.AccessToken, account.TokenID, account.RefreshToken)
	}
	return all
}

// TestNoTokenOfAnAnswerIsLostByARefresh: likewise, from the due message to the
// database and the dead letters, for grants with accounts that answers name, or do not,
// and for those whose accounts are not known.
func TestNoTokenOfAnAnswerIsLostByARefresh(t *testing.T) {
	r := newRig(t)
	server := newAnswering(t)
	r.meshURL = server.url
	w := r.worker("a")
	letters := r.letters(w)
	generator := rapid.Custom(anyAnswer)
	for n := range 40 {
		// What one answer does to its broker, and to all, is no matter here.
		g := r.connect(w, meshsim.ConnectSpec{BrokerType: fmt.Sprint("broker-", n)}, func(g *store.Grant) {
			g.UserID = fmt.Sprint("user-", n)
			for _, id := range [][]string{{}, {"one"}, {"one", "two"}}[n%3] {
				g.Accounts = append(g.Accounts, store.Account{ID: id, ExpiresAt: g.Access.ExpiresAt})
			}
			if n%5 == 0 {
				g.Accounts = nil
			}
		})
		given := generator.Example(n)
		if given.status == 401 || given.status == 403 || given.status == 429 {
			given.status = 500
		}
		server.set(given)
		require.NoError(t, w.Due(t.Context(), due(g)))
		kept, left := map[string]bool{}, ""
		g = r.get(w, g.ID)
		require.False(t, g.Left)
		set, err := w.Tokens(t.Context(), g)
		require.NoError(t, err)
		for _, token := range tokensOf(set) {
			kept[token.Reveal()] = true
		}
		for letter, err := range letters.All(t.Context()) {
			require.NoError(t, err)
			require.Equal(t, handlers.AnswerName, letter.Message)
			if letter.Tag == g.ID {
				body, err := letters.Open(t.Context(), letter.DeadLetter)
				require.NoError(t, err)
				left += opened(string(body))
			}
		}
		requireKept(t, given, kept, left)
	}
}
