package refresher

import (
	"bytes"
	"cmp"
	"html"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/latchkey/latchkey/events/secret"
)

// Not all text of an answer is read: some stands outside of JSON, or where the contract
// has something else. If it may hold tokens the whole answer is kept. A long run of the
// characters of tokens is enough for that, however the text is escaped, and the name of
// a token counts for more.

type unread struct {
	// named: a member with the name of a token has a value that can't be read.
	named bool
	// odd stands outside of JSON, or where the contract has an object. aside are the strings of
	// members that the contract does not have, said those for people and ids; a line for each.
	odd, aside, said []byte
}

// doubt is what speaks for tokens in a text that was not read.
type doubt int

const (
	noDoubt  doubt = iota
	doubtful       // runs of characters like those of tokens, which a gateway's pages have, too
	named          // the name of a token, with such a run as its value
)

func note(to *[]byte, text string) {
	if strings.TrimSpace(text) != "" {
		*to = append(append(*to, text...), '\n')
	}
}

// doubt looks through all that was not read. known are tokens that are kept or were sent.
// lost: the refresh token may have been replaced, so its successor may stand anywhere.
func (u *unread) doubt(known []secret.Text, lost bool) doubt {
	defer func() {
		clear(u.odd)
		clear(u.aside)
		clear(u.said)
	}()
	if u.named {
		return named
	}
	s := search{left: mostSearched}
	without := sync.OnceValue(func() *strings.Replacer { return replacing(known) })
	search := func(text []byte) doubt {
		s.without = nil
		if s.doubtOf(string(text), 0) == noDoubt {
			return noDoubt // as a rule, and there may be many tokens
		}
		s.without = without()
		return s.doubtOf(string(text), 0)
	}
	found, aside := search(u.odd), search(u.aside)
	if aside == named || search(u.said) == named {
		return named
	}
	if lost {
		found = max(found, aside)
	}
	return found
}

// replacing takes tokens out of a text, except those as short as words.
func replacing(tokens []secret.Text) *strings.Replacer {
	var texts []string
	for _, token := range tokens {
		if text := token.Reveal(); len(text) >= leastNamed {
			texts = append(texts, text)
		}
	}
	slices.SortFunc(texts, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) }) // one may begin with another
	var pairs []string
	for _, text := range slices.Compact(texts) {
		pairs = append(pairs, text, " ")
	}
	return strings.NewReplacer(pairs...)
}

const (
	// leastNamed is how long a run beside the name of a token has to be to count, and
	// leastSure to count as more than a word.
	leastNamed, leastSure = 6, 16
	maxEscaped            = 4       // how often a text may be escaped
	maxBeside             = 4 << 10 // how much text behind a name is searched
	// mostSearched bounds the text that is searched for one answer, which waits to be kept
	// meanwhile. What is larger is doubtful.
	mostSearched = 256 << 10
)

var (
	tokenName = regexp.MustCompile(`(?i)(?:access|refresh)[_-]?token|token[_-]?id`)
	besideIt  = regexp.MustCompile(`^((?:\W|value|token){1,24})([\w.~+/=-]+)`)
	sureRun   = regexp.MustCompile(`[\w.~+/=-]{16,}`)
	// bareRun has no name beside it, and none of the characters between the names of
	// hosts, files and attributes.
	bareRun = regexp.MustCompile(`[\w~+-]{20,}`)
	escape  = regexp.MustCompile(`%[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\.`)
	// packedRun is base64 in lines of any length.
	packedRun = regexp.MustCompile(`[A-Za-z0-9+/_-][A-Za-z0-9+/_\r\n-]{22,}[A-Za-z0-9+/_-]`)
)

// search goes through the text of one answer. left is how much more it may read.
type search struct {
	without *strings.Replacer
	left    int
}

// doubtOf searches a text that was escaped so many times.
func (s *search) doubtOf(text string, escaped int) (found doubt) {
	if len(text) > s.left {
		defer func() { found = max(found, doubtful) }()
		text = text[:s.left]
	}
	s.left -= len(text)
	text = strings.ReplaceAll(text, "\x00", "") // as in UTF-16
	if s.without != nil {
		text = s.without.Replace(text)
	}
	for _, at := range tokenName.FindAllStringIndex(text, -1) {
		beside := besideIt.FindStringSubmatch(text[at[1]:min(len(text), at[1]+maxBeside)])
		if beside == nil || tokenName.MatchString(beside[2]) { // that one comes next
			continue
		}
		between, run := beside[1], beside[2]
		switch {
		case len(run) >= leastSure && mixed(run):
			return named
		case len(run) >= leastNamed && strings.TrimSpace(between) != "": // a word of a sentence else
			found = doubtful
		}
	}
	if found == noDoubt && slices.ContainsFunc(bareRun.FindAllString(text, -1), mixed) {
		found = doubtful
	}
	if escaped == maxEscaped {
		return found
	}
	if plain := unescape(text); plain != text {
		found = max(found, s.doubtOf(plain, escaped+1))
	}
	for _, run := range packedRun.FindAllString(text, -1) {
		if found == named || s.left == 0 {
			break
		}
		packed := decodeBase64([]byte(run))
		inner, _ := unpack(packed, "")
		found = max(found, s.doubtOf(string(inner), escaped+1))
	}
	return found
}

// mixed reports whether a run has letters and digits, as few words have.
func mixed(run string) bool {
	return strings.ContainsAny(run, "0123456789") && strings.ContainsFunc(run, func(r rune) bool { return r|0x20 >= 'a' && r|0x20 <= 'z' })
}

// unescape undoes, once, what URLs, HTML and JSON do to a text.
func unescape(text string) string {
	return html.UnescapeString(escape.ReplaceAllStringFunc(text, func(found string) string {
		switch {
		case found[0] == '%':
			value, _ := strconv.ParseUint(found[1:], 16, 8) // the pattern has two digits
			return string([]byte{byte(value)})
		case strings.HasPrefix(found, `\u`):
			value, _ := strconv.ParseUint(found[2:], 16, 32) // four
			return string(rune(value))
		case strings.ContainsAny(found[1:], "nrtbf"):
			return " "
		}
		return found[1:]
	}))
}

// forPeople is the name of a member that holds text for people, or an id of the answer.
var forPeople = regexp.MustCompile(`(message|title|details?|description|instance|url|logo|hash|id|name|path|time|timestamp)$`)

// bodyToKeep returns the body of an answer if it has to be kept: because of d, or because it is
// no text and no tokens were found in it.
func bodyToKeep(body []byte, d doubt, found bool) (whole secret.Text, uncertain bool) {
	if len(bytes.TrimSpace(body)) == 0 || d == noDoubt && found {
		return secret.Text{}, false
	}
	whole, binary := rest(body)
	if d == noDoubt && !binary {
		return secret.Text{}, false
	}
	return whole, d != named
}
