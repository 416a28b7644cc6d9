package meshsim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Dialect is one way in which Mesh, an institution or a gateway between the two says
// or does something that its contract allows, or that happens all the same. An
// [Institution] speaks any number of them at once; where two contradict each other,
// the later one of [Dialects] has its way.
type Dialect struct {
	Name string   `json:"name"`
	On   Occasion `json:"on"`
	Says string   `json:"says"` // one sentence

	// behave changes what the institution does.
	behave func(*Institution)
	// shape changes an answer or a payload as a JSON object.
	shape func(*draft)
	// wire changes the bytes of an answer and how they are sent.
	wire func(*draft)
}

// Occasion is what a dialect is about.
type Occasion string

// The occasions.
const (
	OnBehaviour Occasion = "behaviour" // what the institution does
	OnTokens    Occasion = "tokens"    // an answer that brings tokens
	OnRefusal   Occasion = "refusal"   // an answer that refuses the refresh token
	OnWrongCode Occasion = "wrongCode" // an answer that refuses the code of the MFA flow
	OnRefresh   Occasion = "refresh"   // every answer to a refresh
	OnRemoval   Occasion = "removal"   // the answer to a removal that was carried out
	OnConnect   Occasion = "connect"   // the payload that the browser hands over
	OnLifetimes Occasion = "lifetimes" // the lifetimes in payloads and answers
	// InsteadOfRefresh is an answer of something in front of the institution, which
	// never sees the request.
	InsteadOfRefresh Occasion = "instead"
)

// draft is an answer or a payload while dialects change it.
type draft struct {
	tree   map[string]any
	status int
	header http.Header
	// presented is the refresh token that the request brought.
	presented string

	body []byte
	// missing is how many more bytes Content-Length promises than are sent.
	missing int
	// unending has the body sent in chunks of which the last one never comes.
	unending bool
}

// Dialects returns the table of all dialects, in the order in which they are applied.
func Dialects() []Dialect {
	return slices.Concat(behaviourDialects, tokenDialects, refusalDialects, insteadDialects, connectDialects, bodyDialects)
}

// DialectNames returns the names of the dialects of some occasions.
func DialectNames(on ...Occasion) (names []string) {
	for _, d := range Dialects() {
		if slices.Contains(on, d.On) {
			names = append(names, d.Name)
		}
	}
	return names
}

// speech is a list of dialects in the order of the table.
type speech []Dialect

// speechOf looks dialects up by their names.
func speechOf(names ...string) (speech, error) {
	out := named(names)
	for _, name := range names {
		if !slices.ContainsFunc(out, func(d Dialect) bool { return d.Name == name }) {
			return nil, fmt.Errorf("no dialect is called %q", name)
		}
	}
	return out, nil
}

// named looks dialects up by their names, and passes over what it does not know, as
// from the journal of another release.
func named(names []string) (out speech) {
	if len(names) == 0 {
		return nil
	}
	for _, d := range Dialects() {
		if slices.Contains(names, d.Name) {
			out = append(out, d)
		}
	}
	return out
}

// behaviour is an institution that also does what its dialects say.
func (s speech) behaviour(i Institution) Institution {
	for _, d := range s {
		if d.behave != nil {
			d.behave(&i)
		}
	}
	return i
}

// about returns the dialects of an occasion, and those that go with it.
func (s speech) about(on Occasion) (out speech) {
	with := map[Occasion][]Occasion{
		OnTokens:         {OnTokens, OnLifetimes, OnRefresh},
		OnRefusal:        {OnRefusal, OnRefresh},
		OnWrongCode:      {OnWrongCode, OnRefresh},
		OnConnect:        {OnConnect, OnLifetimes},
		InsteadOfRefresh: {InsteadOfRefresh},
	}[on]
	if with == nil {
		with = []Occasion{on}
	}
	for _, d := range s {
		if slices.Contains(with, d.On) {
			out = append(out, d)
		}
	}
	return out
}

// say puts an answer into the words of the dialects.
func (s speech) say(a answer, presented string) answer {
	spoken := s.about(a.occasion)
	if len(spoken) == 0 {
		return a
	}
	d := &draft{status: a.status, header: http.Header{}, presented: presented, body: a.body}
	d.header.Set("Content-Type", a.contentType)
	if !spoken.draw(d) {
		return answer{outcome: "unspeakable", status: http.StatusInternalServerError}
	}
	var names []string
	for _, dialect := range spoken {
		names = append(names, dialect.Name)
	}
	a.outcome = strings.TrimPrefix(a.outcome+spokenIn+strings.Join(names, ", "), spokenIn)
	a.status, a.body, a.missing, a.unending = d.status, d.body, d.missing, d.unending
	a.contentType, a.header = cmp.Or(d.header.Get("Content-Type"), "application/json; charset=utf-8"), d.header
	return a
}

// draw has each dialect change the draft: the object first, then the bytes.
func (s speech) draw(d *draft) bool {
	if json.Unmarshal(d.body, &d.tree) != nil {
		d.tree = nil // not an object; only its bytes can change
	}
	if d.tree == nil && len(d.body) == 0 {
		d.tree = map[string]any{}
	}
	for _, dialect := range s {
		if dialect.shape != nil && d.tree != nil {
			dialect.shape(d)
		}
	}
	if d.tree != nil {
		var err error
		if d.body, err = json.Marshal(d.tree); err != nil {
			return false
		}
	}
	for _, dialect := range s {
		if dialect.wire != nil {
			dialect.wire(d)
		}
	}
	return true
}

// content is the content of an envelope, made if there is none.
func (d *draft) content() map[string]any {
	c, ok := d.tree["content"].(map[string]any)
	if !ok {
		c = map[string]any{}
		d.tree["content"] = c
	}
	return c
}

// entries are the tokens of accounts in an envelope or a payload.
func (d *draft) entries() (out []map[string]any) {
	list, _ := d.content()["brokerAccountTokens"].([]any)
	for _, e := range list {
		if entry, ok := e.(map[string]any); ok {
			out = append(out, entry)
		}
	}
	return out
}

// eachAccount changes the account of each entry.
func eachAccount(change func(entry, account map[string]any)) func(*draft) {
	return func(d *draft) {
		for _, e := range d.entries() {
			if account, ok := e["account"].(map[string]any); ok {
				change(e, account)
			}
		}
	}
}

// envelopeOf makes the whole answer an envelope without content.
func envelopeOf(httpStatus int, members map[string]any) func(*draft) {
	return func(d *draft) {
		d.status = httpStatus
		d.tree = map[string]any{}
		for name, value := range members {
			d.tree[name] = value
		}
	}
}

// pageOf makes the whole answer a page of a gateway.
func pageOf(httpStatus int, title string) func(*draft) {
	return func(d *draft) {
		d.status = httpStatus
		d.header.Set("Content-Type", "text/html; charset=utf-8")
		d.body = []byte("<!DOCTYPE html>\n<html><head><title>" + title + "</title></head><body><h1>" + title + "</h1></body></html>\n")
	}
}
