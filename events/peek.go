package events

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// PeekUsers returns the users whom a body names where a decoder would look,
// whatever is wrong with it, so that an erasure finds it. Of a body that decodes
// it is the one that the decoder says; a body that names several does not decode.
// It serves no other purpose: a body that does not decode is nobody's.
func PeekUsers(body []byte) []string {
	var p peeked
	body = trimBOM(body)
	end := p.read(body, true)
	found, other := p.plain, p.wrapped
	if p.event {
		found, other = other, found
	}
	if len(valid(found)) == 0 {
		found = other
	}
	return valid(append(found, scan(body[end:])...))
}

// maxPeeked bounds how many users one body is found by.
const maxPeeked = 16

// valid returns those that could be users, each once.
func valid(ids []string) []string {
	var out []string
	for _, id := range ids {
		if CheckUserID(id) == nil && !slices.Contains(out, id) && len(out) < maxPeeked {
			out = append(out, id)
		}
	}
	return out
}

// userMember is a userId in what is no JSON.
var userMember = regexp.MustCompile(`"userId"\s*:\s*("(?:[^"\\]|\\.)*")`)

// scan looks for users in what could not be read.
func scan(body []byte) []string {
	var out []string
	for _, found := range userMember.FindAllSubmatch(body, maxPeeked) {
		if id, err := jsontext.AppendUnquote(nil, found[1]); err == nil {
			out = append(out, string(id))
		}
	}
	return out
}

func trimBOM(body []byte) []byte { return bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")) }

// peeked is what was found in a body.
type peeked struct {
	plain, wrapped []string // userId of the body, and of its data
	event          bool     // the body is a CloudEvents message
}

// read reads JSON objects, one after the other, and returns where it could go no
// further. What came before counts.
func (p *peeked) read(body []byte, outer bool) (end int64) {
	d := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for p.object(d, outer) {
	}
	return d.InputOffset()
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
				p.plain = append(p.plain, value.String())
			} else {
				p.wrapped = append(p.wrapped, value.String())
			}
		case outer && key == "data" && kind == '{':
			if !p.object(d, false) {
				return false
			}
		case outer && (key == "data" || key == "data_base64") && kind == '"':
			value, err := d.ReadToken()
			if err != nil {
				return false
			}
			p.read(trimBOM([]byte(value.String())), false)
			p.read(trimBOM(fromBase64(value.String())), false)
		default:
			p.event = p.event || outer && key == "specversion" && kind != 'n'
			if d.SkipValue() != nil {
				return false
			}
		}
	}
	_, err := d.ReadToken()
	return err == nil
}

// fromBase64 decodes any of the usual forms; what is none of them gives nothing.
func fromBase64(text string) []byte {
	text = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/", "\r", "", "\n", "").Replace(text), "=")
	out, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return out
}
