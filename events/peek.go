package events

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// FindUsers returns the users that a body names, even if it is malformed, so that an
// erasure finds its dead letter. If the body decodes, the result is the decoder's user.
// Use it for nothing else: a body that does not decode belongs to nobody.
func FindUsers(body []byte) []string {
	var p foundUsers
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

// maxUsers limits the users of one body.
const maxUsers = 16

// valid returns the distinct valid user ids.
func valid(ids []string) []string {
	var out []string
	for _, id := range ids {
		if CheckUserID(id) == nil && !slices.Contains(out, id) && len(out) < maxUsers {
			out = append(out, id)
		}
	}
	return out
}

// userMember matches a userId in text that is not JSON.
var userMember = regexp.MustCompile(`"userId"\s*:\s*("(?:[^"\\]|\\.)*")`)

// scan finds users in text that is not JSON.
func scan(body []byte) []string {
	var out []string
	for _, found := range userMember.FindAllSubmatch(body, maxUsers) {
		if id, err := jsontext.AppendUnquote(nil, found[1]); err == nil {
			out = append(out, string(id))
		}
	}
	return out
}

func trimBOM(body []byte) []byte { return bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")) }

// foundUsers are the users in a body.
type foundUsers struct {
	plain, wrapped []string // userId of the body, and of its data
	event          bool     // the body is a CloudEvents message
}

// read reads consecutive JSON objects and returns the offset of the first error.
func (p *foundUsers) read(body []byte, outer bool) (end int64) {
	d := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for p.object(d, outer) {
	}
	return d.InputOffset()
}

// object reads an object to its end or the first error.
func (p *foundUsers) object(d *jsontext.Decoder, outer bool) (ok bool) {
	if open, err := d.ReadToken(); err != nil || open.Kind() != '{' {
		return false
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return false
		}
		switch key, kind := name.String(), d.PeekKind(); {
		case kind == '"' && (key == "userId" || outer && (key == "data" || key == "data_base64")):
			value, err := d.ReadToken()
			switch text := value.String(); {
			case err != nil:
				return false
			case key != "userId":
				p.read(trimBOM([]byte(text)), false)
				p.read(trimBOM(fromBase64(text)), false)
			case outer:
				p.plain = append(p.plain, text)
			default:
				p.wrapped = append(p.wrapped, text)
			}
		case outer && key == "data" && kind == '{':
			if !p.object(d, false) {
				return false
			}
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

// fromBase64 decodes base64 in any of its usual forms, or returns nil.
func fromBase64(text string) []byte {
	text = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/", "\r", "", "\n", "").Replace(text), "=")
	out, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return out
}
