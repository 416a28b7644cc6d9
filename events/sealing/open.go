package sealing

import (
	"encoding/base64"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"

	"github.com/latchkey/latchkey/events"
)

// OpenError says why a JWE does not open. It quotes no value.
type OpenError struct{ Problem string }

func (e *OpenError) Error() string { return "sealed: " + e.Problem }

// maxHeader limits the protected header, which has about 250 bytes.
const maxHeader = 2048

// header has all members that a protected header may have. Others would ask for something
// that this package does not do, such as compression.
type header struct {
	Algorithm string `json:"alg"`
	Content   string `json:"enc"`
	KeyID     string `json:"kid"`
	Ephemeral struct {
		KeyType string `json:"kty"`
		Curve   string `json:"crv"`
		X       string `json:"x"`
		Y       string `json:"y"`
	} `json:"epk"`
	PartyU      string `json:"apu"`
	PartyV      string `json:"apv"`
	Type        string `json:"typ"`
	ContentType string `json:"cty"`
}

// Sealed is a JWE.
type Sealed struct {
	jwe   *jose.JSONWebEncryption
	keyID string
}

// Parse reads a JWE in compact serialization. The error is an *OpenError.
func Parse(jwe string) (*Sealed, error) {
	parts := strings.SplitN(jwe, ".", 6)
	if len(parts) != 5 {
		return nil, &OpenError{"not a JWE in compact serialization"}
	}
	if len(parts[0]) > maxHeader {
		return nil, &OpenError{"the protected header is too large"}
	}
	// The library accepts line breaks and stray bits at the end. Only one form of a JWE
	// should open.
	var protected []byte
	for i, part := range parts {
		decoded, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || strings.ContainsAny(part, "\r\n") {
			return nil, &OpenError{"not in base64url"}
		}
		if i == 0 {
			protected = decoded
		}
	}
	var h header
	if err := json.Unmarshal(protected, &h, json.RejectUnknownMembers(true)); err != nil {
		return nil, &OpenError{"the protected header is not well-formed, or says more than alg, enc, kid, epk, apu, apv, typ and cty"}
	}
	switch {
	case h.Algorithm != string(agreement):
		return nil, &OpenError{"alg: must be " + string(agreement)}
	case h.Content != string(content):
		return nil, &OpenError{"enc: must be " + string(content)}
	case h.KeyID == "":
		return nil, &OpenError{"kid: missing"}
	}
	ephemeral := events.JWK{KeyType: h.Ephemeral.KeyType, Curve: h.Ephemeral.Curve, X: h.Ephemeral.X, Y: h.Ephemeral.Y}
	if _, err := ephemeral.PublicKey(); err != nil {
		return nil, &OpenError{"epk: " + err.Error()}
	}
	parsed, err := jose.ParseEncryptedCompact(jwe, []jose.KeyAlgorithm{agreement}, []jose.ContentEncryption{content})
	if err != nil {
		return nil, &OpenError{"not a JWE in compact serialization"}
	}
	return &Sealed{jwe: parsed, keyID: h.KeyID}, nil
}

// KeyID is the id of the key that opens it.
func (s *Sealed) KeyID() string { return s.keyID }

// Open returns the plaintext. The error is an *OpenError.
func (s *Sealed) Open(key PrivateKey) ([]byte, error) {
	if key.key == nil || key.public.ID() != s.keyID {
		return nil, &OpenError{"kid: names another key"}
	}
	plaintext, err := s.jwe.Decrypt(key.key)
	if err != nil {
		return nil, &OpenError{"it does not open with the key that kid names: changed, or sealed to another"}
	}
	return plaintext, nil
}

// OpenReply reads the reply to a request whose SealTo was key's public part. It refuses
// a reply that is not sealed: others may have read or written it. The error is an
// *OpenError or an *events.InvalidError.
func OpenReply(body []byte, key PrivateKey) (events.TokenReply, error) {
	jwe, err := events.SealedReply(body)
	if err != nil {
		return events.TokenReply{}, err
	}
	if jwe == "" {
		return events.TokenReply{}, &OpenError{"the reply is not sealed"}
	}
	sealed, err := Parse(jwe)
	if err != nil {
		return events.TokenReply{}, err
	}
	plaintext, err := sealed.Open(key)
	if err != nil {
		return events.TokenReply{}, err
	}
	return events.DecodeTokenReply(plaintext)
}
