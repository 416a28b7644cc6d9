package refresher

import (
	"bytes"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// An answer of Mesh is read as it comes, not as it should be: its tokens may exist
// nowhere else. What is missing, null, of the wrong type or repeated costs no token
// beside it. Names count in any case, as "accessToken" or "access_token".

// transcript is what one answer says (@meshconnect/node-api 2.0.28, the envelope
// of BrokerRefreshTokenResponse), token by token.
type transcript struct {
	Answer
	statuses
	// outer holds the tokens that stand outside of "content".
	outer AnsweredAccount
	// account is the deprecated account in "content".
	account   AnsweredAccount
	documents int  // JSON values
	broken    bool // there was something else, too
	unread    unread
}

// statuses are words from outside by which an answer says how it went. Show only known ones.
type statuses struct {
	http int
	// readable: the answer is one JSON value.
	readable                                bool
	envelope, content, errorType, errorHash string
}

// UnplacedToken is a token in a place where the contract has none, or one too many.
type UnplacedToken struct {
	Token secret.Text
	// Refresh: its name is that of a refresh token.
	Refresh bool
	// Usable: it can be used as the token that its name says, if there is no better one.
	Usable bool `json:"Meant"`
	// Foreign: no token of Mesh's answers has this name. A gateway may put one into each page.
	Foreign bool `json:"-"`
}

// readAnswer transcribes the body of an answer. It keeps no part of the body.
func readAnswer(r reply) transcript {
	t := transcript{statuses: statuses{http: r.status}}
	text, fresh := unpack(r.body, r.header.Get("Content-Encoding"))
	t.read(text, atRoot, nil, 0)
	if fresh {
		clear(text)
	}
	t.readable = t.documents == 1 && !t.broken && r.cut == nil
	t.Partial = r.cut != nil || t.documents == 0 || t.broken
	// Beside an error, what stands outside of "content" may be our own request.
	if r.status < 300 {
		t.put(&t.AccessToken, t.outer.AccessToken, false, true)
		t.put(&t.RefreshToken, t.outer.RefreshToken, true, true)
	} else {
		t.addUnplaced(t.outer.AccessToken, false, false)
		t.addUnplaced(t.outer.RefreshToken, true, false)
	}
	t.Accounts = slices.DeleteFunc(t.Accounts, AnsweredAccount.blank)
	t.nameDeprecated()
	t.Answer = bounded(t.Answer) // an invalid byte in a name becomes a character of three
	return t
}

// nameDeprecated gives the deprecated tokens, and an entry that repeats them without an
// account, to the account beside them.
func (t *transcript) nameDeprecated() {
	own := t.account
	if !own.named() {
		return
	}
	listed, refreshes := false, false
	var nameless []*AnsweredAccount
	for i := range t.Accounts {
		in := &t.Accounts[i]
		listed = listed || in.ID == own.ID && in.Name == own.Name || in.ID != "" && in.ID == own.ID
		refreshes = refreshes || !in.RefreshToken.Empty()
		if !in.named() && !in.AccessToken.Empty() {
			nameless = append(nameless, in)
		}
	}
	for _, in := range nameless {
		if in.AccessToken == t.AccessToken || t.AccessToken.Empty() && len(nameless) == 1 && !listed {
			in.ID, in.Name = own.ID, own.Name
		}
	}
	own.AccessToken = t.AccessToken
	if !refreshes {
		own.RefreshToken = t.RefreshToken
	}
	if !own.AccessToken.Empty() || !own.RefreshToken.Empty() {
		t.Accounts = slices.Insert(t.Accounts, 0, own) // of two access tokens of one account the last counts
	}
}

type place int

const (
	atRoot place = iota
	inContent
	inEntries
	inEntry
	inAccount
	// aside is where the contract has no tokens.
	aside
)

// maxNesting bounds how often JSON stands in a string of JSON.
const maxNesting = 3

// read reads all JSON in a text. nesting is how many strings the text stands in.
func (t *transcript) read(text []byte, p place, entry *AnsweredAccount, nesting int) {
	first := len(text) - len(bytes.TrimLeft(text, " \t\r\n"))
	for start := 0; start < len(text); {
		begin := len(text)
		if start == 0 && first < len(text) && strings.IndexByte(`"ntf-0123456789`, text[first]) >= 0 {
			begin = first // one value that is neither object nor array
		} else if i := bytes.IndexAny(text[start:], "{["); i >= 0 {
			begin = start + i
		}
		t.sweep(text[start:begin])
		if begin == len(text) {
			return
		}
		r := answerReader{t: t, text: text[begin:], nesting: nesting, resumed: start > 0}
		r.from = *bytes.NewBuffer(r.text)
		r.json.Reset(&r.from, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		for r.json.PeekKind() != 0 && !r.failed {
			r.value(p, entry)
			if nesting == 0 && !r.failed {
				t.documents++
			}
		}
		t.broken = t.broken || r.failed
		start = begin + max(int(r.json.InputOffset()), 1)
	}
}

// namedToken finds a member that holds a token in what is no JSON as a whole.
var namedToken = regexp.MustCompile(`(?i)"(access_?token|refresh_?token|token_?id)"\s*:\s*("(?:[^"\\]|\\.)*")`)

func (t *transcript) sweep(text []byte) {
	if len(bytes.TrimSpace(text)) == 0 {
		return
	}
	t.broken = true
	for _, found := range namedToken.FindAllSubmatch(text, -1) {
		name := normal(string(found[1]))
		value, err := jsontext.AppendUnquote(nil, found[2])
		t.unread.named = t.unread.named || err != nil
		t.addUnplaced(t.token(string(value)), name == "refreshtoken", name != "tokenid")
	}
	rest := namedToken.ReplaceAll(text, nil)
	defer clear(rest)
	note(&t.unread.odd, string(rest))
}

// token returns a text as a token; empty if it can't be one.
func (t *transcript) token(text string) secret.Text {
	switch {
	case strings.TrimSpace(text) == "":
		return secret.Text{}
	case strings.ContainsRune(text, utf8.RuneError): // not what Mesh has
		t.unread.named = true
		return secret.Text{}
	}
	return secret.New(text)
}

// put stores a token in its place. The last one counts, as with most JSON decoders.
func (t *transcript) put(at *secret.Text, token secret.Text, refresh, meant bool) {
	if token.Empty() || token == *at {
		return
	}
	t.addUnplaced(*at, refresh, meant)
	*at = token
}

func (t *transcript) addUnplaced(token secret.Text, refresh, meant bool) {
	if !token.Empty() {
		t.Unplaced = append(t.Unplaced, UnplacedToken{Token: token, Refresh: refresh, Usable: meant})
	}
}

// lifetime reads a number of seconds. What is none states no lifetime.
func (t *transcript) lifetime(at *time.Duration, text string) {
	if seconds, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err == nil && !math.IsNaN(seconds) {
		if d := events.Seconds(seconds).Duration(); d > 0 {
			*at = d
		}
	}
}
