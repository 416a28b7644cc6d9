package events

import (
	"bytes"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// members are the names of the members that a message takes.
type members struct {
	names         []string
	quoted, plain map[string]string // by their JSON, and by what plainName makes of them
	optional      map[string]bool   // those of which null says that they are absent: none narrows
}

// membersOf returns the members that the struct type T is decoded from. What null
// stands for is nil in T; no member that narrows may be of such a type.
func membersOf[T any]() members {
	m := members{quoted: map[string]string{}, plain: map[string]string{}, optional: map[string]bool{}}
	t := reflect.TypeFor[T]()
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			m.names = append(m.names, name)
			kind := t.Field(i).Type.Kind()
			m.optional[name] = kind == reflect.Pointer || kind == reflect.Slice
			m.quoted[strconv.Quote(name)] = name
			m.plain[plainName(name)] = name
		}
	}
	return m
}

// plainName is what two names have in common of which one is taken for the other.
func plainName(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", ".", "", " ", "").Replace(name))
}

// check refuses what could get lost of a message in which an absent member means
// "all". A member with an unknown name may be one that narrows, written otherwise;
// null or an empty text may be a value that the sender lacked. What lies within the
// members is up to the caller. body was read by decodeStrict.
func (m members) check(message string, body []byte) error {
	r := memberReaders.Get().(*memberReader)
	defer r.put()
	r.from = *bytes.NewBuffer(body)
	r.json.Reset(&r.from)
	if open, err := r.json.ReadToken(); err != nil || open.Kind() != '{' {
		return invalid(message, "the body: a JSON object is needed")
	}
	for r.json.PeekKind() == '"' {
		given, err := r.json.ReadValue()
		if err != nil {
			return invalid(message, "not well-formed JSON")
		}
		name, exact := m.quoted[string(given)]
		if !exact {
			if name, err = m.resembled(message, given); err != nil {
				return err
			}
		}
		value, err := r.json.ReadValue()
		switch {
		case err != nil:
			return invalid(message, "not well-formed JSON")
		case string(value) == "null" && !m.optional[name]:
			return invalid(message, "%s: null; leave the member out or give it a value", name)
		case string(value) == `""`:
			return invalid(message, "%s: empty; leave the member out or give it a value", name)
		}
	}
	return nil
}

// resembled returns the member that a name which is not written plainly stands for.
func (m members) resembled(message string, given jsontext.Value) (string, error) {
	unquoted, err := jsontext.AppendUnquote(nil, given)
	if err != nil {
		return "", invalid(message, "not well-formed JSON")
	}
	name, found := m.plain[plainName(string(unquoted))]
	switch {
	case !found:
		return "", invalid(message, "a member is not known, and may have been meant to narrow what is asked for; known are %s", strings.Join(m.names, ", "))
	case name != string(unquoted):
		return "", invalid(message, "%s: the name is written in another way; it must be exactly this", name)
	}
	return name, nil
}

var memberReaders = sync.Pool{New: func() any { return &memberReader{} }}

// memberReader reads JSON in place: every token request waits for it.
type memberReader struct {
	from bytes.Buffer
	json jsontext.Decoder
}

func (r *memberReader) put() {
	r.from = bytes.Buffer{}
	r.json.Reset(&r.from)
	memberReaders.Put(r)
}
