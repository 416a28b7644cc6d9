package events

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	problemTwice = "stands twice, with different values"
	problemText  = "not UTF-8"
	problemEmpty = "empty"
)

func wrongKind(v jsontext.Value) string {
	return "a JSON " + kindName(v.Kind()) + " does not fit there"
}

// member describes a member of an object.
type member struct {
	name string
	// essential: a message with two different values is refused.
	essential bool
}

// members returns the values of the members with the given names in a well-formed JSON
// object, nil for those that are absent or null.
func (r *connectReader) members(object jsontext.Value, at location, names []member) []jsontext.Value {
	values := make([]jsontext.Value, len(names))
	twice := make([]bool, len(names))
	eachMember(object, func(name []byte, value jsontext.Value) {
		i := slices.IndexFunc(names, func(m member) bool { return m.name == string(name) })
		switch {
		case i < 0:
		case value.Kind() == 'n' || !twice[i] && sameValue(values[i], value):
		case values[i] == nil:
			values[i] = value
		case names[i].essential && r.inEntry: // only this entry is left out
			r.ambiguous = true
			r.loseToken(at.at(names[i].name), problemTwice)
		case names[i].essential:
			r.refuse(at.at(names[i].name), problemTwice)
		default:
			twice[i] = true
			r.leaveOut(at.at(names[i].name), problemTwice)
		}
	})
	for i := range values {
		if twice[i] {
			values[i] = nil
		}
	}
	return values
}

func sameValue(a, b jsontext.Value) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if a.Kind() != '"' || b.Kind() != '"' {
		return false
	}
	s, problemOfA := textOf(a)
	t, problemOfB := textOf(b)
	return s == t && problemOfA == "" && problemOfB == ""
}

// eachMember calls each for the members of a well-formed JSON object, in place.
func eachMember(object jsontext.Value, each func(name []byte, value jsontext.Value)) {
	w := walk(object)
	defer w.end()
	for w.json.PeekKind() == '"' {
		name := w.next()
		text := []byte(name[1 : len(name)-1])
		if bytes.IndexByte(text, '\\') >= 0 {
			text, _ = jsontext.AppendUnquote(nil, name) // invalid UTF-8 is no known name
		}
		each(text, w.next())
	}
}

// hasMember reports whether a well-formed JSON object has a member, which may be null.
func hasMember(object jsontext.Value, name string) (found bool) {
	eachMember(object, func(n []byte, _ jsontext.Value) { found = found || string(n) == name })
	return found
}

// eachElement calls each for the elements of a well-formed JSON array, in place.
func eachElement(array jsontext.Value, each func(i int, value jsontext.Value)) {
	w := walk(array)
	defer w.end()
	for i := 0; w.json.PeekKind() != ']' && !w.failed; i++ {
		each(i, w.next())
	}
}

// walker reads the values in an object or array in place, without copies of tokens. A
// tree of a whole message would be far larger than the message.
type walker struct {
	whole  jsontext.Value
	from   bytes.Buffer
	json   jsontext.Decoder
	failed bool
}

var walkers = sync.Pool{New: func() any { return &walker{} }}

// walk returns a walker for an object or array.
func walk(whole jsontext.Value) *walker {
	w := begin(whole)
	_, err := w.json.ReadToken()
	w.failed = err != nil
	return w
}

func begin(whole []byte) *walker {
	w := walkers.Get().(*walker)
	w.whole, w.from, w.failed = whole, *bytes.NewBuffer(whole), false
	w.json.Reset(&w.from, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	return w
}

// end returns the walker to the pool, without references to the message.
func (w *walker) end() {
	w.whole, w.from = nil, bytes.Buffer{}
	w.json.Reset(&w.from)
	walkers.Put(w)
}

// next returns the next value, a slice of the whole.
func (w *walker) next() jsontext.Value {
	v, err := w.json.ReadValue()
	if err != nil { // not in a well-formed value
		w.failed = true
		return jsontext.Value("null")
	}
	end := w.json.InputOffset()
	return w.whole[end-int64(len(v)) : end]
}

func object(message string, body []byte) (jsontext.Value, error) {
	body = trimBOM(body)
	if err := wellFormed(message, body); err != nil {
		return nil, err
	}
	whole := jsontext.Value(bytes.TrimSpace(body))
	if whole.Kind() != '{' {
		return nil, invalid(message, "the body: %s", wrongKind(whole))
	}
	return whole, nil
}

// wellFormed checks that a body is one JSON value. It allows invalid UTF-8 and duplicate
// names, which matter only in members that are read.
func wellFormed(message string, body []byte) error {
	w := begin(body)
	defer w.end()
	err := w.json.SkipValue()
	if err == nil {
		if _, err = w.json.ReadToken(); errors.Is(err, io.EOF) {
			return nil
		}
	}
	if err == nil || errors.Is(err, io.EOF) {
		return invalid(message, "not well-formed JSON (at byte %d)", max(w.json.InputOffset()-1, 0))
	}
	return syntaxProblem(message, err)
}

// textOf returns the text of a JSON string, or the problem with it. Absent is empty.
func textOf(v jsontext.Value) (text, problem string) {
	switch {
	case v == nil:
		return "", ""
	case v.Kind() != '"':
		return "", wrongKind(v)
	case bytes.IndexByte(v, '\\') < 0 && utf8.Valid(v):
		return string(v[1 : len(v)-1]), ""
	}
	unquoted, err := jsontext.AppendUnquote(nil, v)
	if err != nil {
		return "", problemText
	}
	return string(unquoted), ""
}
