package events

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// A message with tokens may be sealed: its data is then an object with the one member
// "sealed", a JWE in compact serialization (RFC 7516) with the data in it. Package
// events/sealing seals and opens.

// ConnectedMessage is an integration.connected message without its envelope.
type ConnectedMessage struct {
	// JWE contains the data of a sealed message, for DecodeOpened. Empty: the message is
	// not sealed.
	JWE     string
	data    jsontext.Value
	at      time.Time
	leftOut []string
}

// UnwrapConnected reads the envelope of an integration.connected message: plain JSON, or
// a CloudEvents 1.0 message in structured or binary mode. Every error is an
// *InvalidError. If only the envelope of a sealed message is wrong, the JWE is returned
// with the error: the message shows no token.
func UnwrapConnected(h Headers, body []byte) (ConnectedMessage, error) {
	var r connectReader
	data, at, err := r.unwrap(h, body)
	if err != nil {
		return ConnectedMessage{JWE: sealedIn(body)}, err
	}
	jwe, err := r.sealed(data)
	if err != nil {
		return ConnectedMessage{}, err
	}
	return ConnectedMessage{JWE: jwe, data: data, at: at, leftOut: r.leftOut}, nil
}

// Decode reads a message that is not sealed. Unusable parts that are not needed are left
// out. Every error is an *InvalidError.
func (m ConnectedMessage) Decode() (Connected, error) {
	if m.JWE != "" {
		return Connected{}, invalid(IntegrationConnected, "sealed: it must be opened first")
	}
	r := connectReader{leftOut: slices.Clone(m.leftOut)}
	return r.connect(m.data, m.at)
}

// sealedIn returns the JWE of a message with a wrong envelope, or "" if the data is not
// sealed or the envelope itself may contain tokens. Attributes of an envelope are no
// objects.
func sealedIn(body []byte) (jwe string) {
	data, err := object(IntegrationConnected, body)
	if err != nil {
		return ""
	}
	var r connectReader
	m := r.members(data, location{}, []member{{"specversion", false}, {"data", true}, {"data_base64", true}})
	if inner, encoded := m[1], m[2]; inner != nil || encoded != nil {
		objects := 0
		eachMember(data, func(name []byte, v jsontext.Value) {
			if (v.Kind() == '{' || v.Kind() == '[') && string(name) != "data" {
				objects++
			}
		})
		if m[0] == nil || inner != nil && encoded != nil || objects > 0 {
			return ""
		}
		if data = inner; data == nil {
			text, _ := textOf(encoded)
			if data, err = object(IntegrationConnected, fromBase64(text)); err != nil {
				return ""
			}
		}
	}
	if data.Kind() != '{' || r.err() != nil {
		return ""
	}
	if jwe, err = r.sealed(data); err != nil {
		return ""
	}
	return jwe
}

// DecodeOpened reads the plaintext of JWE: the data of the message, without an envelope
// and not sealed again. Every error is an *InvalidError.
func (m ConnectedMessage) DecodeOpened(plaintext []byte) (Connected, error) {
	data, err := object(IntegrationConnected, plaintext)
	if err != nil {
		return Connected{}, err
	}
	r := connectReader{leftOut: slices.Clone(m.leftOut)}
	jwe, err := r.sealed(data)
	if err != nil {
		return Connected{}, err
	}
	if jwe != "" {
		return Connected{}, invalid(IntegrationConnected, "sealed twice")
	}
	return r.connect(data, m.at)
}

// EncodeSealed returns the body that contains a JWE.
func EncodeSealed(jwe string) []byte {
	b, _ := json.Marshal(map[string]string{"sealed": jwe}) // texts only
	return b
}

// SealedReply returns the JWE of a sealed token reply, or "" for one that is not sealed.
// Every error is an *InvalidError.
func SealedReply(body []byte) (jwe string, err error) {
	const message = TokenGetName + " reply"
	var members map[string]jsontext.Value
	if err := decodeStrict(message, body, &members); err != nil {
		return "", err
	}
	sealed, found := members["sealed"]
	switch {
	case !found:
		return "", nil
	case sealed.Kind() != '"':
		return "", invalid(message, "sealed: a JSON %s does not fit there", kindName(sealed.Kind()))
	case len(members) > 1:
		return "", invalid(message, "sealed: nothing may stand beside it")
	}
	if err := decodeStrict(message, sealed, &jwe); err != nil {
		return "", err
	}
	if jwe == "" {
		return "", invalid(message, "sealed: empty")
	}
	return jwe, nil
}
