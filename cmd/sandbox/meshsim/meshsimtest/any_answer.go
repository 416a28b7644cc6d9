package meshsimtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

// Answer is an answer of Mesh with any tokens in it.
type Answer struct {
	Response
	// Tokens are the token strings in the text of it, cut those that were cut off.
	Tokens []string
	// Escaped: it comes in a form that is not read.
	Escaped bool
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

// AnyAnswer draws an answer. Those that are cut off hold no token behind the cut.
func AnyAnswer(t *rapid.T) Answer {
	w := &writer{t: t}
	text := w.object(map[string]func() string{
		"status": func() string {
			return w.one("envelope", `"ok"`, `"ok"`, `"serverFailure"`, `"badRequest"`, `"notFound"`, `"tooManyRequest"`, `"locked"`, `"new"`, `null`, `7`)
		},
		"message": w.odd, "displayMessage": w.odd, "errorType": w.odd, "content": w.content,
	})
	out := Answer{Response: Response{Status: rapid.SampledFrom([]int{200, 200, 200, 201, 302, 400, 401, 403, 404, 408, 409, 429, 451, 500, 502, 503}).Draw(t, "HTTP status")}}
	names := slices.Sorted(maps.Keys(Encodings))
	encoding := rapid.SampledFrom(slices.Concat(names, slices.Sorted(maps.Keys(Escapes)), []string{"plain", "plain", "plain"})).Draw(t, "encoding")
	encode, escaped := Escapes[encoding]
	if out.Escaped = escaped; !escaped {
		encode = Encodings[encoding]
	}
	if encoding == "plain" && rapid.Bool().Draw(t, "cut") {
		text = text[:rapid.IntRange(0, len(text)).Draw(t, "at")]
		out.Declared = len(text) + rapid.IntRange(0, 1).Draw(t, "declared")*100
	}
	for _, token := range w.tokens {
		if strings.Contains(text, token) {
			out.Tokens = append(out.Tokens, token)
		}
	}
	out.Body = encode(text)
	return out
}
