package refresher

import (
	"bytes"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events/secret"
)

// answerReader reads JSON in place. After a failure it reads nothing more.
type answerReader struct {
	t       *transcript
	text    []byte
	from    bytes.Buffer
	json    jsontext.Decoder
	nesting int
	failed  bool
	// resumed: it reads on behind what is no JSON, so that an object may stand anywhere.
	resumed bool
}

func (r *answerReader) next() (token jsontext.Token) {
	if !r.failed {
		var err error
		token, err = r.json.ReadToken()
		r.failed = err != nil
	}
	return token
}

// more reports whether another value follows in the array or object.
func (r *answerReader) more() bool {
	kind := r.json.PeekKind()
	return !r.failed && kind != '}' && kind != ']' && kind != 0
}

// value reads one value of any kind. entry is the one that it stands in, if any.
func (r *answerReader) value(p place, entry *AnsweredAccount) {
	switch r.json.PeekKind() {
	case '{':
		switch {
		case p == inEntries:
			r.entry()
		case p <= inContent && r.resumed:
			r.found(p)
		default:
			r.object(p, entry)
		}
	case '[':
		r.next()
		for r.more() {
			if p == inEntries {
				r.entry()
			} else {
				r.value(p, entry)
			}
		}
		r.next()
	case '"':
		if text := r.next(); !r.failed {
			r.inner(p, "", text.String(), entry)
		}
	default:
		r.next()
	}
}

func (r *answerReader) object(p place, entry *AnsweredAccount) {
	r.next()
	for r.more() {
		if name := r.next(); !r.failed {
			r.member(p, normal(name.String()), entry)
		}
	}
	r.next()
}

// found reads an object behind damage. One that names an account is an entry of
// "brokerAccountTokens", or the account of one.
func (r *answerReader) found(p place) {
	var in AnsweredAccount
	r.resumed = false // for what stands in it
	r.object(p, &in)
	r.resumed = true
	if in.named() {
		r.t.Accounts = append(r.t.Accounts, in)
		return
	}
	access, refresh := &r.t.outer.AccessToken, &r.t.outer.RefreshToken
	if p == inContent {
		access, refresh = &r.t.AccessToken, &r.t.RefreshToken
	}
	r.t.put(access, in.AccessToken, false, true)
	r.t.put(refresh, in.RefreshToken, true, true)
	r.t.addUnplaced(in.TokenID, false, false)
}

// inner reads a string, of a member if name is set, in which JSON counts.
func (r *answerReader) inner(p place, name, text string, entry *AnsweredAccount) {
	t := r.t
	text = strings.TrimSpace(text)
	switch {
	case strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") || p == atRoot && strings.HasPrefix(text, `"`):
		if r.nesting >= maxNesting {
			note(&t.unread.odd, text)
			return
		}
		inner, broken := []byte(text), t.broken
		defer clear(inner)
		t.read(inner, p, entry, r.nesting+1)
		if p == aside {
			t.broken = broken // "[none]" is no damage
		}
	case p == inEntries || p == inEntry:
		t.addUnplaced(t.token(text), false, false)
	case p != aside:
		note(&t.unread.odd, text)
	case strings.Contains(name, "token") && slices.ContainsFunc(sureRun.FindAllString(text, -1), mixed):
		t.Unplaced = append(t.Unplaced, UnplacedToken{Token: t.token(text), Refresh: strings.Contains(name, "refresh"), Foreign: !tokenName.MatchString(name)})
	case forPeople.MatchString(name):
		note(&t.unread.said, text)
	default:
		note(&t.unread.aside, text)
	}
}

func (r *answerReader) entry() {
	var entry AnsweredAccount
	t, before := r.t, len(r.t.Unplaced)
	r.value(inEntry, &entry)
	switch {
	case entry.ID != "":
		// Of several access tokens each is this account's.
		for _, l := range t.Unplaced[before:] {
			if l.Usable && !l.Refresh {
				t.Accounts = append(t.Accounts, AnsweredAccount{ID: entry.ID, Name: entry.Name, AccessToken: l.Token})
			}
		}
		t.Unplaced = append(t.Unplaced[:before], slices.DeleteFunc(t.Unplaced[before:], func(l UnplacedToken) bool { return l.Usable && !l.Refresh })...)
	case r.failed && entry.Name == "":
		// It may have named its account behind the damage.
		t.addUnplaced(entry.AccessToken, false, true)
		t.addUnplaced(entry.RefreshToken, true, true)
		t.addUnplaced(entry.TokenID, false, false)
		return
	}
	t.Accounts = append(t.Accounts, entry)
}

func (r *answerReader) member(p place, name string, entry *AnsweredAccount) {
	t := r.t
	switch name {
	case "accesstoken", "refreshtoken", "tokenid":
		r.tokens(p, name, entry)
		return
	case "brokeraccounttokens":
		r.value(inEntries, nil)
		return
	case "content":
		r.value(inContent, nil)
		return
	case "account":
		switch {
		case p == inEntry || p <= inContent && entry != nil:
			r.value(inAccount, entry)
		case p <= inContent:
			r.value(inAccount, &t.account)
		default:
			r.value(aside, nil)
		}
		return
	}
	kind := r.json.PeekKind()
	if kind != '"' && kind != '0' {
		r.value(aside, nil)
		return
	}
	value := r.next()
	if r.failed {
		return
	}
	text := value.String()
	switch {
	case p <= inContent && name == "expiresinseconds":
		t.lifetime(&t.ExpiresIn, text)
	case p <= inContent && name == "refreshtokenexpiresinseconds":
		t.lifetime(&t.RefreshExpiresIn, text)
	case kind == '0': // no other number counts
	case p == atRoot && name == "status":
		t.envelope = text
	case p == atRoot && name == "errortype":
		t.errorType = text
	case p == atRoot && name == "errorhash":
		t.errorHash = text
	case p == inContent && name == "status":
		t.statuses.content = text
	case (p == inAccount || p <= inContent) && name == "accountid" && entry != nil:
		entry.ID = text
	case (p == inAccount || p <= inContent) && name == "accountname" && entry != nil:
		entry.Name = text
	default:
		r.inner(aside, name, text, nil)
	}
}

// tokens reads the value of a member with the name of a token.
func (r *answerReader) tokens(p place, name string, entry *AnsweredAccount) {
	t, refresh := r.t, name == "refreshtoken"
	if r.json.PeekKind() != '"' {
		r.mistyped(refresh)
		return
	}
	value := r.next()
	if r.failed { // what is left of it is no token
		r.spoiled()
		return
	}
	token := t.token(value.String())
	r.followedBy("", ",}] \t\r\n")
	var access, refreshed, id *secret.Text
	switch {
	case (p == inEntry || p <= inContent) && entry != nil:
		access, refreshed, id = &entry.AccessToken, &entry.RefreshToken, &entry.TokenID
	case p == inContent:
		access, refreshed = &t.AccessToken, &t.RefreshToken
	case p == atRoot:
		access, refreshed = &t.outer.AccessToken, &t.outer.RefreshToken
	}
	at := map[string]*secret.Text{"accesstoken": access, "refreshtoken": refreshed, "tokenid": id}[name]
	if at == nil {
		t.addUnplaced(token, refresh, false)
		return
	}
	t.put(at, token, refresh, name != "tokenid")
}

func (r *answerReader) spoiled() { r.followedBy(": \t\r\n\"", ",}]") }

// followedBy notes what comes next, but for what is skipped, as part of a token that was
// not read, unless one of these characters ends the value.
func (r *answerReader) followedBy(skip, ends string) {
	left := bytes.TrimLeft(r.text[r.json.InputOffset():], skip)
	r.t.unread.named = r.t.unread.named || len(left) > 0 && strings.IndexByte(ends, left[0]) < 0
}

// mistyped reads a value that should be a token and is no string; strings in it are kept.
func (r *answerReader) mistyped(refresh bool) {
	for depth, first := 0, true; first || depth > 0; first = false {
		token := r.next()
		if r.failed {
			r.spoiled()
			return
		}
		switch token.Kind() {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"': // within another value
			if text := token.String(); !slices.Contains(knownNames, normal(text)) {
				r.t.addUnplaced(r.t.token(text), refresh, false)
			}
		default:
			if depth == 0 {
				r.followedBy("", ",}] \t\r\n")
			}
		}
	}
}

// knownNames are names in answers, and so no tokens.
var knownNames = []string{"accesstoken", "refreshtoken", "tokenid", "value", "token", "type", "account", "accountid"}
