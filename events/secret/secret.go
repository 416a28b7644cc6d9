// Package secret has the type that holds tokens and credentials in the process. It can't
// be printed, logged or marshalled by accident: all formatting and encoding yields
// [Redacted]. Code that needs the characters calls Reveal, so that a search for that word
// finds every place where a secret is used.
package secret

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"log/slog"
	"unique"
	"unsafe"
)

// Redacted is printed in place of a secret.
const Redacted = "[redacted]"

// Text is a secret string. The zero value is the empty secret. Texts with the same
// characters share one copy in memory and are equal by ==; use Equal if an attacker could
// measure the time of the comparison.
//
// JSON and YAML decode into a Text; encoding one never yields the secret.
type Text struct {
	// A unique.Handle[string] as an untyped pointer. Code that prints by reflection without
	// calling methods (fmt on unexported fields, the diffs of test libraries) follows typed
	// pointers; of this one it prints the address.
	hidden unsafe.Pointer
}

// This does not compile unless a handle is one pointer.
var _ [0]byte = [unsafe.Sizeof(unique.Handle[string]{}) - unsafe.Sizeof(Text{})]byte{}

// New wraps s.
func New(s string) Text {
	if s == "" {
		return Text{}
	}
	handle := unique.Make(s)
	return Text{*(*unsafe.Pointer)(unsafe.Pointer(&handle))}
}

// Reveal returns the secret itself. The caller must not log, format or store it.
func (t Text) Reveal() string {
	if t.Empty() {
		return ""
	}
	return (*(*unique.Handle[string])(unsafe.Pointer(&t.hidden))).Value()
}

// Masked returns asterisks and the last four characters, so that a human can tell tokens
// apart. Of a short secret it shows nothing.
func (t Text) Masked() string {
	s := t.Reveal()
	if len(s) < 20 {
		return "****"
	}
	return "****" + s[len(s)-4:]
}

// Empty reports whether there is no secret.
func (t Text) Empty() bool { return t.hidden == nil }

// Equal compares two secrets in a time that depends only on their lengths.
func (t Text) Equal(o Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.Reveal()), []byte(o.Reveal())) == 1
}

// String implements fmt.Stringer.
func (t Text) String() string {
	if t.Empty() {
		return ""
	}
	return Redacted
}

// GoString implements fmt.GoStringer.
func (t Text) GoString() string { return "secret.Text{" + t.String() + "}" }

// Format implements fmt.Formatter, so that no verb, not even %#v or %x, prints the secret.
func (t Text) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(t.String())) }

// LogValue implements slog.LogValuer.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText implements encoding.TextMarshaler, for JSON, YAML and XML.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// bsonString is the BSON type of a string.
const bsonString = 0x02

// MarshalBSONValue implements bson.ValueMarshaler without importing the MongoDB driver
// into every program that publishes an event.
func (t Text) MarshalBSONValue() (typ byte, data []byte, err error) {
	s := t.String()
	data = binary.LittleEndian.AppendUint32(nil, uint32(len(s)+1))
	return bsonString, append(append(data, s...), 0), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Text) UnmarshalText(b []byte) error {
	*t = New(string(b))
	return nil
}
