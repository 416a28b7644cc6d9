// Package sealing seals messages with tokens to one reader, and opens them: a
// connect to the workers, a token reply to whoever asked.
//
// A sealed body is {"sealed":"<JWE>"} around what would otherwise be the body.
// The JWE (RFC 7516) is in compact serialization with ECDH-ES+A256KW and
// A256GCM, to a key on P-256; its protected header names the key by thumbprint
// (RFC 7638). Nothing else is sealed or opened.
//
// Sealing hides a body; it does not tell who wrote it.
package sealing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"

	"github.com/latchkey/latchkey/events"
)

// PublicKey is what is sealed to.
type PublicKey struct {
	jwk events.JWK
	key *ecdsa.PublicKey
}

// NewPublicKey returns the key that a JWK holds. The error quotes nothing of it.
func NewPublicKey(jwk events.JWK) (PublicKey, error) {
	point, err := jwk.PublicKey()
	if err != nil {
		return PublicKey{}, err
	}
	if jwk, err = events.NewJWK(point); err != nil { // named by what it is
		return PublicKey{}, err
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point.Bytes())
	if err != nil {
		return PublicKey{}, errors.New("not a point on P-256")
	}
	return PublicKey{jwk: jwk, key: key}, nil
}

// ParseKeys reads the answer to a request on events.Subjects.TokenKeys and
// returns the key to seal to. Every error is an *events.InvalidError.
func ParseKeys(jwks []byte) (PublicKey, error) {
	keys, err := events.DecodeTokenKeys(jwks)
	if err != nil {
		return PublicKey{}, err
	}
	return NewPublicKey(keys.Keys[0])
}

// ID names the key: its thumbprint, the kid of what is sealed to it.
func (k PublicKey) ID() string { return k.jwk.KeyID }

// JWK is the key as others are given it.
func (k PublicKey) JWK() events.JWK { return k.jwk }

// Seal seals a body. The result takes its place, as the body of a message or
// as the data of a CloudEvents message.
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
	return events.EncodeSealed(jwe)
}

// The only algorithms.
const (
	agreement = jose.ECDH_ES_A256KW
	content   = jose.A256GCM
)
