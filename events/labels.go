package events

import (
	"fmt"
	"regexp"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of labels, so that they fit into every event and reply.
const (
	maxLabels          = 8
	maxLabelValueBytes = 256
)

// A dot in the name of a field is a path for some engines.
var labelName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// labels reads what a publisher wants to find again with a grant. A bad label is
// left out; its name is not told, since it may be anything.
func (r *connectReader) labels(v jsontext.Value) map[string]string {
	at := location{name: "labels"}
	if v == nil {
		return nil
	}
	if v.Kind() != '{' {
		r.leave(at, misfit(v))
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
		case len(text) > maxLabelValueBytes:
			problem = fmt.Sprintf("a value has %d bytes, at most %d", len(text), maxLabelValueBytes)
		case twice[name], known && before != text:
			problem = "a name " + problemTwice
			delete(out, name)
			twice[name] = true
		case !known && len(out) == maxLabels:
			problem = fmt.Sprintf("more than %d", maxLabels)
		default:
			if c, found := unseen(text); found {
				problem = fmt.Sprintf("a value contains the control or formatting character %U", c)
			}
		}
		if problem != "" {
			r.leave(at, problem)
			return
		}
		out[name] = text
	})
	if len(out) == 0 {
		return nil
	}
	return out
}
