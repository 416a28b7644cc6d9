package events

import (
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Headers are the CloudEvents attributes in the NATS headers of a message in binary
// mode (CloudEvents NATS protocol binding), by header name in lower case. Nil: the
// message is plain JSON or in structured mode.
type Headers map[string][]string

var attributeHeaders = []string{"ce-id", "ce-source", "ce-specversion", "ce-time", "ce-type"}

// HeadersOf returns the attributes that Latchkey reads. Case makes no difference: header
// names in NATS are case-sensitive, and HTTP gateways write them in either case.
func HeadersOf(header map[string][]string) Headers {
	var out Headers
	for name, values := range header {
		name = strings.ToLower(name)
		if !slices.Contains(attributeHeaders, name) {
			continue
		}
		if out == nil {
			out = Headers{}
		}
		out[name] = append(out[name], values...)
	}
	return out
}

// values returns the distinct values of an attribute.
func (h Headers) values(name string) []string {
	var out []string
	for _, value := range h["ce-"+name] {
		value = strings.TrimSpace(fromPercent(value))
		if value != "" && !slices.Contains(out, value) {
			out = append(out, value)
		}
	}
	return out
}

// ID returns the id of the event, or "" if it has none.
func (h Headers) ID() string {
	if ids := h.values("id"); len(ids) == 1 {
		return ids[0]
	}
	return ""
}

// check refuses an event of another type or version. The other attributes may be absent:
// a structured message may be forwarded with some of these headers.
func (h Headers) check(message string) error {
	for _, version := range h.values("specversion") {
		if version != cloudEventsVersion {
			return invalid(message, "ce-specversion: must be %q", cloudEventsVersion)
		}
	}
	for _, kind := range h.values("type") {
		if !isType(message, kind) {
			return invalid(message, "ce-type: must be %q or end in %q", message, "."+message)
		}
	}
	return nil
}

// time returns the time of the event. It is zero if there is none, or if there is a
// problem with it.
func (h Headers) time() (at time.Time, problem string) {
	switch given := h.values("time"); len(given) {
	case 0:
		return time.Time{}, ""
	case 1:
		return parseTime(given[0])
	}
	return time.Time{}, problemTwice
}

// parseTime reads a time in the form of RFC 3339, or returns the problem with it.
func parseTime(text string) (at time.Time, problem string) {
	switch err := at.UnmarshalText([]byte(text)); {
	case err != nil:
		return time.Time{}, "not a time in the form of RFC 3339"
	case !at.IsZero() && !validTime(at):
		return time.Time{}, problemYears
	}
	return at, ""
}

var escape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// fromPercent decodes the percent-encoding of the protocol binding. The Go SDK does not
// encode, so a "%" that begins no escape stands for itself.
func fromPercent(value string) string {
	return escape.ReplaceAllStringFunc(value, func(e string) string {
		b, _ := hex.DecodeString(e[1:])
		return string(b)
	})
}
