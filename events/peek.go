package events

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// PeekUser returns the user whom a body names before whatever is wrong with it,
// so that an erasure finds it. It serves no other purpose: a body that does not
// decode is nobody's. False: none is named, or none that could be a user.
func PeekUser(body []byte) (userID string, ok bool) {
	d := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var p peeked
	p.object(d, true) // what came before an error counts
	userID = p.plain
	if p.wrapped != "" && (p.event || userID == "") {
		userID = p.wrapped
	}
	return userID, CheckUserID(userID) == nil
}

// peeked is what was found in a body.
type peeked struct {
	plain, wrapped string // userId of the body, and of its data
	event          bool   // the body is a CloudEvents message
}

// object reads an object to its end or the first error.
func (p *peeked) object(d *jsontext.Decoder, outer bool) (ok bool) {
	if open, err := d.ReadToken(); err != nil || open.Kind() != '{' {
		return false
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return false
		}
		switch key, kind := name.String(), d.PeekKind(); {
		case key == "userId" && kind == '"':
			value, err := d.ReadToken()
			if err != nil {
				return false
			}
			if outer {
				p.plain = value.String()
			} else {
				p.wrapped = value.String()
			}
		case outer && key == "data" && kind == '{':
			if !p.object(d, false) {
				return false
			}
		default:
			p.event = p.event || outer && key == "specversion"
			if d.SkipValue() != nil {
				return false
			}
		}
	}
	_, err := d.ReadToken()
	return err == nil
}
