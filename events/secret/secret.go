// Package secret holds the one type in which tokens and credentials travel
// through the process. It cannot be printed, logged or marshalled by accident:
// every formatting and encoding route yields [Redacted]. Code that really
// needs the characters calls Reveal, so that a search for that word lists every
// place where a secret leaves its wrapper.
package secret

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"log/slog"
	"unique"
	"unsafe"
)

// Redacted stands wherever a secret would have been printed.
const Redacted = "[redacted]"

// Text is a secret string. The zero value is the empty secret. Texts of the
// same characters share one copy in memory, and are equal by ==; where somebody
// could measure how long it takes, compare with Equal.
//
// Decoding into a Text works (JSON, YAML, environment); encoding one never
// yields the secret.
type Text struct {
	// A unique.Handle[string] without its type. Code that prints by reflection
	// and calls no methods (fmt on unexported fields, the diffs of test
	// libraries) follows typed pointers to what they point at; of this one it
	// prints the address.
	hidden unsafe.Pointer
}

// A handle is one pointer; else this does not compile.
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

// Masked returns the last four characters behind dots, for a human to tell one
// token from another; of a short secret it returns none.
func (t Text) Masked() string {
	s := t.Reveal()
	if len(s) < 20 {
		return "****"
	}
	return "****" + s[len(s)-4:]
}

// Empty reports whether there is no secret.
func (t Text) Empty() bool { return t.hidden == nil }

// Equal compares two secrets in time that depends on their length only.
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

// Format implements fmt.Formatter, so that no verb, not even %#v or %x,
// reaches the characters.
func (t Text) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(t.String())) }

// LogValue implements slog.LogValuer.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText implements encoding.TextMarshaler; JSON, YAML and XML encoders
// use it.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// bsonString is BSON's type of a string.
const bsonString = 0x02

// MarshalBSONValue implements the MongoDB driver's bson.ValueMarshaler, without
// drawing the driver into every program that publishes an event.
func (t Text) MarshalBSONValue() (typ byte, data []byte, err error) {
	s := t.String()
	data = binary.LittleEndian.AppendUint32(nil, uint32(len(s)+1))
	return bsonString, append(append(data, s...), 0), nil
}

// UnmarshalText implements encoding.TextUnmarshaler, used for JSON strings,
// YAML scalars and environment variables.
func (t *Text) UnmarshalText(b []byte) error {
	*t = New(string(b))
	return nil
}
