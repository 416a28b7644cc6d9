// Package sealing seals messages with tokens to one reader, and opens them: connects to
// the workers, token replies to the requester.
//
// A sealed body is {"sealed":"<JWE>"}. The JWE (RFC 7516) contains the original body, in
// compact serialization with ECDH-ES+A256KW and A256GCM to a key on P-256. The kid in
// its protected header is the key's thumbprint (RFC 7638).
//
// Sealing hides a body; it does not authenticate its author.
package sealing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"

	"github.com/latchkey/latchkey/events"
)

// PublicKey is a key to seal to.
type PublicKey struct {
	jwk events.JWK
	key *ecdsa.PublicKey
}

// NewPublicKey returns the key in a JWK. The error quotes no value.
func NewPublicKey(jwk events.JWK) (PublicKey, error) {
	point, err := jwk.PublicKey()
	if err != nil {
		return PublicKey{}, err
	}
	if jwk, err = events.NewJWK(point); err != nil { // with the thumbprint as its id
		return PublicKey{}, err
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point.Bytes())
	if err != nil {
		return PublicKey{}, errors.New("not a point on P-256")
	}
	return PublicKey{jwk: jwk, key: key}, nil
}

// ParseKeys returns the key to seal to from the reply to a request on
// events.Subjects.TokenKeys. Every error is an *events.InvalidError.
func ParseKeys(jwks []byte) (PublicKey, error) {
	keys, err := events.DecodeTokenKeys(jwks)
	if err != nil {
		return PublicKey{}, err
	}
	return NewPublicKey(keys.Keys[0])
}

// ID returns the key's thumbprint, the kid of a JWE to it.
func (k PublicKey) ID() string { return k.jwk.KeyID }

func (k PublicKey) JWK() events.JWK { return k.jwk }

// Seal seals a body. The result replaces it as the body of a message or the data of a
// CloudEvents message.
func (k PublicKey) Seal(body []byte) ([]byte, error) {
	if k.key == nil {
		return nil, errors.New("sealing: no key")
	}
	encrypter, err := jose.NewEncrypter(content, jose.Recipient{Algorithm: agreement, Key: k.key, KeyID: k.ID()}, nil)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	sealed, err := encrypter.Encrypt(body)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	jwe, err := sealed.CompactSerialize()
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	return events.EncodeSealed(jwe), nil
}

// The only algorithms.
const (
	agreement = jose.ECDH_ES_A256KW
	content   = jose.A256GCM
)
