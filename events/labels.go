package events

import (
	"fmt"
	"regexp"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events/secret"
)

// Labels are in every event and reply. Metadata is stored with the tokens.
const (
	maxLabels, maxLabelValueBytes      = 8, 256
	maxMetadata, maxMetadataValueBytes = 16, 1024
)

// No dots: some databases take a dot in a field name for a path.
var labelName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (r *connectReader) labels(v jsontext.Value) map[string]string {
	return r.texts(v, location{name: "labels"}, maxLabels, maxLabelValueBytes)
}

func (r *connectReader) metadata(v jsontext.Value) map[string]secret.Text {
	var out map[string]secret.Text
	for name, value := range r.texts(v, location{name: "metadata"}, maxMetadata, maxMetadataValueBytes) {
		if out == nil {
			out = map[string]secret.Text{}
		}
		out[name] = secret.New(value)
	}
	return out
}

// texts reads an object of short strings and leaves out invalid ones. It does not report
// their names, which may be anything.
func (r *connectReader) texts(v jsontext.Value, at location, most, bytes int) map[string]string {
	if v == nil {
		return nil
	}
	if v.Kind() != '{' {
		r.leaveOut(at, wrongKind(v))
		return nil
	}
	out := map[string]string{}
	twice := map[string]bool{}
	eachMember(v, func(raw []byte, value jsontext.Value) {
		text, problem := textOf(value)
		name := string(raw)
		before, known := out[name]
		switch {
		case value.Kind() == 'n':
			return
		case !labelName.Match(raw):
			problem = "a name is not 1 to 64 letters, digits, hyphens and underscores"
		case problem != "":
		case len(text) > bytes:
			problem = fmt.Sprintf("a value has %d bytes, at most %d", len(text), bytes)
		case twice[name], known && before != text:
			problem = "a name " + problemTwice
			delete(out, name)
			twice[name] = true
		case !known && len(out) == most:
			problem = fmt.Sprintf("more than %d", most)
		default:
			if c, found := invisible(text); found {
				problem = fmt.Sprintf("a value contains the control or formatting character %U", c)
			}
		}
		if problem != "" {
			r.leaveOut(at, problem)
			return
		}
		out[name] = text
	})
	if len(out) == 0 {
		return nil
	}
	return out
}
