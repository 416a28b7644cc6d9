package meshsim_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
)

// speaking is an institution with some dialects.
func speaking(names ...string) meshsim.Institution {
	i := standard()
	i.Dialects = names
	return i
}

// connectTwo connects two accounts that share a refresh token.
func (b *bench) connectTwo(i meshsim.Institution) meshsim.Connection {
	b.t.Helper()
	return must(b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Accounts: accounts(), Institution: &i}))
}

// heard is what a client can make of an answer, whole or not.
type heard struct {
	code   int
	header http.Header
	raw    []byte // as it came
	text   string // uncompressed and in UTF-8
	err    error  // from the connection
}

// ask refreshes, and takes what comes even if the connection breaks.
func (b *bench) ask(token string, more ...body) heard {
	b.t.Helper()
	q := must(http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url+refreshPath, bytes.NewReader(must(json.Marshal(renewal(token, more...))))))
	q.Header.Set("X-Client-Id", clientID)
	q.Header.Set("X-Client-Secret", clientSecret)
	q.Header.Set("Accept-Encoding", "identity")
	resp, err := b.client.Do(q)
	require.NoError(b.t, err)
	defer func() { _ = resp.Body.Close() }()
	h := heard{code: resp.StatusCode, header: resp.Header}
	h.raw, h.err = io.ReadAll(resp.Body)
	b.settle()
	data := h.raw
	if resp.Header.Get("Content-Encoding") == "gzip" {
		z := must(gzip.NewReader(bytes.NewReader(data)))
		data = must(io.ReadAll(z))
	}
	for mark, order := range map[string]binary.ByteOrder{"\xff\xfe": binary.LittleEndian, "\xfe\xff": binary.BigEndian} {
		if bytes.HasPrefix(data, []byte(mark)) {
			units := make([]uint16, len(data)/2)
			require.NoError(b.t, binary.Read(bytes.NewReader(data), order, units))
			data = []byte(string(utf16.Decode(units)))
		}
	}
	h.text = string(data)
	return h
}

var anyToken = regexp.MustCompile(`sim-(?:refresh|access|trade)-[\w-]+`)

// brings tells whether the answer holds a token with the fingerprint.
func (h heard) brings(fp meshsim.Fingerprint) bool {
	return slices.ContainsFunc(anyToken.FindAllString(h.text, -1), func(token string) bool {
		return meshsim.FingerprintOf(secret.New(token)) == fp
	})
}

// issued requires that an answer brings every token that its request made, and that
// the ledger takes the client for informed.
func (b *bench) issued(t require.TestingT, h heard, request int) {
	l := b.Ledger()
	n := 0
	for _, c := range l.Chains {
		for _, token := range c.Refresh {
			if token.IssuedIn == request {
				require.True(t, h.brings(token.Fingerprint), "a refresh token is missing in %d bytes", len(h.raw))
				n++
			}
		}
		for _, token := range c.Access {
			if token.IssuedIn == request {
				require.True(t, h.brings(token.Fingerprint), "an access token is missing")
				n++
			}
		}
	}
	require.NotZero(t, n)
	require.True(t, l.Requests[request-1].Delivered)
}

// Each dialect of an answer with tokens changes that answer, loses no token, and
// leaves the judgement of the ledger as it is.
func TestEveryDialectOfTokensBringsThem(t *testing.T) {
	plain := newBench(t)
	ordinary := plain.ask(plain.connectTwo(standard()).Accounts[0].RefreshToken.Reveal())
	for _, d := range meshsim.Dialects() {
		if !slices.Contains([]meshsim.Occasion{meshsim.OnTokens, meshsim.OnLifetimes, meshsim.OnRefresh}, d.On) {
			continue
		}
		t.Run(d.Name, func(t *testing.T) {
			b := newBench(t)
			token := b.connectTwo(speaking(d.Name)).Accounts[0].RefreshToken.Reveal()
			h := b.ask(token)
			b.issued(t, h, 1)
			require.False(t, h.code == ordinary.code && bytes.Equal(h.raw, ordinary.raw) && h.header.Get("Content-Type") == ordinary.header.Get("Content-Type"), "says nothing new")
			require.Empty(t, b.Ledger().ReplacedPresented())
			b.ask(token)
			require.Len(t, b.Ledger().DoubleSpends(), 1, "the client was told")
		})
	}
}

// Any mixture of dialects brings all tokens, and a client that presents the newest one
// it was told commits nothing.
func TestAnyMixtureOfDialectsBringsTheTokens(t *testing.T) {
	names := meshsim.DialectNames(meshsim.OnBehaviour, meshsim.OnTokens, meshsim.OnLifetimes, meshsim.OnRefresh, meshsim.OnRefusal)
	names = slices.DeleteFunc(names, func(n string) bool {
		return strings.HasPrefix(n, "mfa") || strings.HasSuffix(n, "Required") || n == "managedTokens" || n == "diesFromDisuse"
	})
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(t)
		i := speaking(rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 6, rapid.ID).Draw(rt, "dialects")...)
		i.Grace = time.Hour
		tokens := []string{b.connectTwo(i).Accounts[0].RefreshToken.Reveal()}
		for range rapid.IntRange(1, 5).Draw(rt, "refreshes") {
			n := rapid.IntRange(0, len(tokens)-1).Draw(rt, "token")
			h := b.ask(tokens[n])
			l := b.Ledger()
			b.issued(rt, h, len(l.Requests))
			for _, c := range l.Chains {
				for _, token := range anyToken.FindAllString(h.text, -1) {
					fp := meshsim.FingerprintOf(secret.New(token))
					switch {
					case c.Current().Fingerprint != fp || slices.Contains(tokens, token):
					case c.ID == l.Requests[len(l.Requests)-1].Chain:
						tokens[n] = token
					default: // an account got a refresh token of its own
						tokens = append(tokens, token)
					}
				}
			}
		}
		l := b.Ledger()
		require.Empty(rt, l.ReplacedPresented())
		for _, c := range l.Chains {
			require.True(rt, c.Alive(), c.DeadBecause)
		}
	})
}

func TestEveryDialectOfRefusals(t *testing.T) {
	for _, name := range meshsim.DialectNames(meshsim.OnRefusal) {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			id, token, _ := b.connect(speaking(name))
			require.Equal(t, http.StatusOK, b.ask(token).code, "says nothing about tokens")
			require.NoError(t, b.Kill(id))
			h := b.ask(token)
			require.NotContains(t, h.text, `"failed"`)
			require.NoError(t, h.err)
			require.Contains(t, b.Ledger().Requests[1].Outcome, name)
		})
	}
	b := newBench(t)
	id, token, _ := b.connect(speaking("unauthorizedToken"))
	require.NoError(t, b.Kill(id))
	r := b.renew(token)
	require.Equal(t, http.StatusBadRequest, r.code)
	require.Equal(t, "Unauthorized token", *r.Message)
	require.Equal(t, "badRequest", *r.ErrorType)
}

// What stands in front of an institution hides it: the token stays unspent.
func TestEveryDialectInFrontOfAnInstitution(t *testing.T) {
	want := map[string]int{"firewall": 403, "legal": 451, "slowDown": 429, "maintenance": 503, "missingField": 400, "refuseEverything": 400, "failEverything": 200, "wrongURL": 404}
	for _, name := range meshsim.DialectNames(meshsim.InsteadOfRefresh) {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			id, token, _ := b.connect(standard())
			require.NoError(t, b.Speak("kraken", name), "another institution")
			require.Equal(t, http.StatusOK, b.ask(token).code)
			token = b.newest(id)
			require.NoError(t, b.Speak("coinbase", name))
			h := b.ask(token)
			if code := want[name]; code != 0 {
				require.Equal(t, code, h.code)
			}
			require.NotContains(t, h.text, "sim-")
			require.NoError(t, b.Speak("coinbase"))
			b.requireUnspent(id, token)
		})
	}
}

// newest hands over the newest refresh token of an account once more.
func (b *bench) newest(id string) string {
	c := must(b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Again: true, Accounts: []meshsim.Account{{ID: id}}}))
	return c.Accounts[0].RefreshToken.Reveal()
}

func TestEveryDialectOfConnects(t *testing.T) {
	ordinary := newBench(t).connectTwo(standard()).Payload.Reveal()
	for _, name := range meshsim.DialectNames(meshsim.OnConnect, meshsim.OnLifetimes) {
		t.Run(name, func(t *testing.T) {
			c := newBench(t).connectTwo(speaking(name))
			said := c.Payload.Reveal()
			require.NotEqual(t, ordinary, said)
			require.True(t, json.Valid([]byte(said)))
			if name != "wallet" {
				require.Contains(t, said, c.Accounts[0].RefreshToken.Reveal())
			}
		})
	}
}

func TestDialectsByRequestAndByName(t *testing.T) {
	b := newBench(t)
	id, token, _ := b.connect(standard())
	b.script(id, meshsim.Speak("noAccount", "tokensUnder500"))
	h := b.ask(token)
	require.Equal(t, http.StatusInternalServerError, h.code)
	require.NotContains(t, h.text, "accountId")
	require.Equal(t, "succeeded, in noAccount, tokensUnder500", b.Ledger().Requests[0].Outcome)

	for name, err := range map[string]error{
		"speak":    b.Speak("", "klingon"),
		"script":   b.Script(id, meshsim.Speak("klingon")),
		"alter":    b.Alter(id, speaking("klingon")),
		"a single": b.Script(id, meshsim.Speak("oneTokenForAll")),
	} {
		require.Error(t, err, name)
	}
	i := speaking("klingon")
	_, err := b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Institution: &i})
	require.ErrorContains(t, err, "klingon")
	_, err = meshsim.New(meshsim.Config{Seed: secret.New("s"), Institutions: map[string]meshsim.Institution{"x": i}})
	require.ErrorContains(t, err, "klingon")
}

func TestTheNamesOfDialectsAreUnique(t *testing.T) {
	names := map[string]bool{}
	for _, d := range meshsim.Dialects() {
		require.False(t, names[d.Name], d.Name)
		names[d.Name] = true
		require.Regexp(t, `^[A-Z].*\.$`, d.Says, d.Name)
	}
}
