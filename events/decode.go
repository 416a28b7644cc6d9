package events

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// InvalidError says why a message violates its contract. It names fields and rules,
// never a value, which may be a token.
type InvalidError struct {
	// Message is the name of the message, such as integration.connected.
	Message string
	// Problem is a sentence for a human.
	Problem string
}

func (e *InvalidError) Error() string { return "invalid " + e.Message + ": " + e.Problem }

func invalid(message, format string, args ...any) error {
	return &InvalidError{Message: message, Problem: fmt.Sprintf(format, args...)}
}

// decodeStrict decodes body into v: UTF-8 only, no duplicate names, names in exact case;
// unknown names are ignored. The errors of the JSON library quote values, so only the
// kind and place of the fault are kept.
func decodeStrict(message string, body []byte, v any) error {
	err := json.Unmarshal(body, v)
	if err == nil {
		return nil
	}
	if sem, ok := errors.AsType[*json.SemanticError](err); ok {
		return invalid(message, "%s: a JSON %s does not fit there", place(string(sem.JSONPointer), reflect.TypeOf(v)), kindName(sem.JSONKind))
	}
	return syntaxProblem(message, err)
}

// syntaxProblem returns an error of the JSON library without values.
func syntaxProblem(message string, err error) error {
	if syn, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		problem := "not well-formed JSON"
		switch {
		case errors.Is(err, jsontext.ErrDuplicateName):
			problem = "an object has the same name twice"
		case strings.Contains(syn.Error(), "invalid UTF-8"):
			problem = "not UTF-8"
		case strings.Contains(syn.Error(), "exceeded max depth"):
			problem = "nested too deeply"
		}
		return invalid(message, "%s (at byte %d)", problem, syn.ByteOffset)
	}
	return invalid(message, "not well-formed JSON")
}

var kindNames = map[jsontext.Kind]string{
	'n': "null", 't': "boolean", 'f': "boolean", '"': "string", '0': "number", '{': "object", '[': "array",
}

func kindName(k jsontext.Kind) string { return cmp.Or(kindNames[k], "value") }

// place renders a JSON pointer, with "?" for names that the type does not know: these
// are the sender's.
func place(pointer string, t reflect.Type) string {
	if pointer == "" {
		return "the body"
	}
	var out []string
	for _, part := range strings.Split(strings.TrimPrefix(pointer, "/"), "/") {
		for t != nil && t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch {
		case t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array):
			out, t = append(out, part), t.Elem()
		case t != nil && t.Kind() == reflect.Struct:
			name, next := "?", reflect.Type(nil)
			for i := range t.NumField() {
				tag, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
				if tag == part {
					name, next = part, t.Field(i).Type
				}
			}
			out, t = append(out, name), next
		default:
			out, t = append(out, "?"), nil
		}
	}
	return strings.Join(out, ".")
}

const cloudEventsVersion = "1.0"

func isType(message, kind string) bool {
	return kind == message || strings.HasSuffix(kind, "."+message)
}

func foreignType(message string) error {
	return invalid(message, "the CloudEvents type must be %q or end in %q", message, "."+message)
}

// cloudEvent is the part of a CloudEvents 1.0 structured message that Latchkey reads.
// The CloudEvents SDK does not read it: it panics if data_base64 is not a string, and
// refuses JSON escapes in it.
type cloudEvent struct {
	SpecVersion *string        `json:"specversion"`
	ID          string         `json:"id"`
	Source      string         `json:"source"`
	Type        string         `json:"type"`
	Time        time.Time      `json:"time"`
	Data        jsontext.Value `json:"data"`
	DataBase64  []byte         `json:"data_base64"`
}

// decodeCloudEvent reads a CloudEvents 1.0 structured message. Nil: body is JSON but no
// CloudEvent.
func decodeCloudEvent(message string, body []byte) (*cloudEvent, error) {
	var event cloudEvent
	err := decodeStrict(message, body, &event)
	switch {
	case event.SpecVersion != nil && *event.SpecVersion != cloudEventsVersion:
		return nil, invalid(message, "specversion: must be %q", cloudEventsVersion)
	case err != nil:
		return nil, err
	case event.SpecVersion == nil:
		return nil, nil
	}
	for _, required := range []struct{ name, value string }{{"id", event.ID}, {"source", event.Source}, {"type", event.Type}} {
		if strings.TrimSpace(required.value) == "" {
			return nil, invalid(message, "the CloudEvents attribute %s is missing or empty", required.name)
		}
	}
	switch {
	case event.Data == nil && event.DataBase64 == nil:
		return nil, invalid(message, "the CloudEvents message has neither data nor data_base64")
	case event.Data != nil && event.DataBase64 != nil:
		return nil, invalid(message, "the CloudEvents message has both data and data_base64")
	case event.Data == nil:
		event.Data = event.DataBase64
	}
	return &event, nil
}

// unwrap returns the data and time of a CloudEvents 1.0 structured message, or body if
// it is plain JSON.
func unwrap(message string, body []byte) (data []byte, at time.Time, err error) {
	event, err := decodeCloudEvent(message, body)
	if err != nil {
		return nil, time.Time{}, err
	}
	if event == nil {
		return body, time.Time{}, nil
	}
	if !isType(message, event.Type) {
		return nil, time.Time{}, foreignType(message)
	}
	return event.Data, event.Time, nil
}
