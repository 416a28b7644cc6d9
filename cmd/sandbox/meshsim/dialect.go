package meshsim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Dialect is one way in which Mesh, an institution or a gateway between the two says
// or does something that its contract allows, or that happens all the same. An
// [Institution] speaks any number of them at once; where two contradict each other,
// the later one of [Dialects] wins.
type Dialect struct {
	Name string   `json:"name"`
	On   Occasion `json:"on"`
	Says string   `json:"says"` // one sentence

	behave func(*Institution) // changes what the institution does
	shape  func(*draft)       // changes an answer or a payload as a JSON object
	wire   func(*draft)       // changes the bytes of an answer and how they are sent
}

func behaves(name, says string, behave func(*Institution)) Dialect {
	return Dialect{Name: name, On: OnBehaviour, Says: says, behave: behave}
}

func shapes(on Occasion, name, says string, shape func(*draft)) Dialect {
	return Dialect{Name: name, On: on, Says: says, shape: shape}
}

func sends(on Occasion, name, says string, wire func(*draft)) Dialect {
	return Dialect{Name: name, On: on, Says: says, wire: wire}
}

type Occasion string

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
	answer
	tree      map[string]any
	presented string // the refresh token of the request
}

// Dialects returns the table of all dialects, in the order in which they are applied.
func Dialects() []Dialect {
	return slices.Concat(behaviourDialects, tokenDialects, refusalDialects, insteadDialects, connectDialects, bodyDialects)
}

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

func speechOf(names ...string) (speech, error) {
	out := lookUp(names)
	for _, name := range names {
		if !slices.ContainsFunc(out, func(d Dialect) bool { return d.Name == name }) {
			return nil, fmt.Errorf("no dialect is called %q", name)
		}
	}
	return out, nil
}

// lookUp looks dialects up by their names, and ignores unknown ones, as from the
// journal of another release.
func lookUp(names []string) speech {
	if len(names) == 0 {
		return nil
	}
	return slices.DeleteFunc(speech(Dialects()), func(d Dialect) bool { return !slices.Contains(names, d.Name) })
}

// behaviour returns how an institution behaves that speaks these dialects.
func (s speech) behaviour(i Institution) Institution {
	for _, d := range s {
		if d.behave != nil {
			d.behave(&i)
		}
	}
	return i
}

// about returns the dialects of an occasion, and the more general ones that apply to it.
func (s speech) about(on Occasion) (out speech) {
	general := map[Occasion][]Occasion{
		OnTokens:    {OnLifetimes, OnRefresh},
		OnRefusal:   {OnRefresh},
		OnWrongCode: {OnRefresh},
		OnConnect:   {OnLifetimes},
	}[on]
	for _, d := range s {
		if d.On == on || slices.Contains(general, d.On) {
			out = append(out, d)
		}
	}
	return out
}

func (s speech) say(a answer, presented string) answer {
	spoken := s.about(a.occasion)
	if len(spoken) == 0 {
		return a
	}
	d := &draft{answer: a, presented: presented}
	d.header = http.Header{"Content-Type": {a.contentType}}
	if !spoken.draw(d) {
		return answer{outcome: "unspeakable", status: http.StatusInternalServerError}
	}
	var names []string
	for _, dialect := range spoken {
		names = append(names, dialect.Name)
	}
	d.outcome = strings.TrimPrefix(a.outcome+spokenIn+strings.Join(names, ", "), spokenIn)
	d.contentType = cmp.Or(d.header.Get("Content-Type"), typeJSON)
	return d.answer
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

// entries are the tokens of accounts in an envelope.
func (d *draft) entries() []map[string]any { return objects(d.content()["brokerAccountTokens"]) }

func objects(array any) (out []map[string]any) {
	list, _ := array.([]any)
	for _, e := range list {
		if object, ok := e.(map[string]any); ok {
			out = append(out, object)
		}
	}
	return out
}

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
		d.status, d.tree = httpStatus, maps.Clone(members)
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
