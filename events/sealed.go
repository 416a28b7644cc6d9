package events

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// A message with tokens may travel sealed: its data is then an object with the
// one member "sealed", a JWE in compact serialization (RFC 7516) around what
// would otherwise be the data. Package events/sealing seals and opens.

// SealedConnected is an integration.connected message whose data is sealed.
// Nothing in it can be believed before it is opened.
type SealedConnected struct {
	// JWE is to be opened into what Decode takes.
	JWE     string
	at      time.Time
	leftOut []string
}

// DecodeSealedConnected reads the outside of a sealed integration.connected
// message, plain or as a CloudEvents 1.0 structured message. It returns nil for
// a message that is not sealed. Every error is an *InvalidError.
func DecodeSealedConnected(body []byte) (*SealedConnected, error) {
	return DecodeSealedConnectedMessage(nil, body)
}

// DecodeSealedConnectedMessage is DecodeSealedConnected for a message that may be a
// CloudEvents message in binary mode.
func DecodeSealedConnectedMessage(h Headers, body []byte) (*SealedConnected, error) {
	var r connectReader
	data, at, err := r.unwrap(h, body)
	if err != nil {
		return nil, err
	}
	jwe, err := r.sealed(data)
	if err != nil || jwe == "" {
		return nil, err
	}
	return &SealedConnected{JWE: jwe, at: at, leftOut: r.leftOut}, nil
}

// Decode reads what was sealed: the data of an integration.connected message,
// neither in a CloudEvents message nor sealed again. Every error is an
// *InvalidError.
func (s *SealedConnected) Decode(plaintext []byte) (Connected, error) {
	data, err := object(IntegrationConnected, plaintext)
	if err != nil {
		return Connected{}, err
	}
	r := connectReader{leftOut: slices.Clone(s.leftOut)}
	jwe, err := r.sealed(data)
	if err != nil {
		return Connected{}, err
	}
	if jwe != "" {
		return Connected{}, invalid(IntegrationConnected, "sealed twice")
	}
	return r.connect(data, s.at)
}

// EncodeSealed is the form in which a JWE takes the place of what it seals.
func EncodeSealed(jwe string) ([]byte, error) {
	b, err := json.Marshal(struct {
		Sealed string `json:"sealed"`
	}{jwe})
	if err != nil {
		return nil, fmt.Errorf("encoding a sealed body: %w", err)
	}
	return b, nil
}

// SealedReply returns the JWE of a token reply that is sealed, "" for one that
// is not. Every error is an *InvalidError.
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
