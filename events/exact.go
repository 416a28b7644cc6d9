package events

import (
	"reflect"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// members are the members of a message in which an absent member means "all".
type members struct {
	names    []string
	nullable map[string]bool   // by name, whether null is the same as absent
	plain    map[string]string // the names, by plainName
}

// membersOf returns the JSON members of the struct type T. Null is allowed where T has
// a pointer or slice; no member that narrows a message may have such a type.
func membersOf[T any]() members {
	m := members{nullable: map[string]bool{}, plain: map[string]string{}}
	t := reflect.TypeFor[T]()
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			kind := t.Field(i).Type.Kind()
			m.names = append(m.names, name)
			m.nullable[name] = kind == reflect.Pointer || kind == reflect.Slice
			m.plain[plainName(name)] = name
		}
	}
	return m
}

// plainName returns the same for names that a sender may confuse.
func plainName(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", ".", "", " ", "").Replace(name))
}

// check refuses unknown members, which may narrow the message under a wrong name, and
// null and empty texts, which may stand for a value that the sender did not have. body
// is an object that decodeStrict has read.
func (m members) check(message string, body []byte) (err error) {
	eachMember(body, func(name []byte, value jsontext.Value) {
		nullable, known := m.nullable[string(name)]
		switch {
		case err != nil:
		case !known:
			err = m.unknown(message, string(name))
		case string(value) == "null" && !nullable:
			err = invalid(message, "%s: null; leave the member out or give it a value", name)
		case string(value) == `""`:
			err = invalid(message, "%s: empty; leave the member out or give it a value", name)
		}
	})
	return err
}

func (m members) unknown(message, given string) error {
	if name, found := m.plain[plainName(given)]; found {
		return invalid(message, "%s: the name is written in another way; it must be exactly this", name)
	}
	return invalid(message, "a member is not known, and may have been meant to narrow what is asked for; known are %s", strings.Join(m.names, ", "))
}
