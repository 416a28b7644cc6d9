package events

import (
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
)

// All JWKs in this protocol are public keys on P-256 for ECDH.
const (
	jwkKeyType   = "EC"
	jwkCurve     = "P-256"
	jwkUse       = "enc"
	JWKAlgorithm = "ECDH-ES+A256KW"
)

// JWK is a public key as a JSON Web Key (RFC 7517): a point on P-256.
type JWK struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	Y         string `json:"y"`
	KeyID     string `json:"kid,omitempty"`
	Use       string `json:"use,omitempty"`
	Algorithm string `json:"alg,omitempty"`
}

// NewJWK returns the JWK of a key on P-256, with its thumbprint as key id.
func NewJWK(key *ecdh.PublicKey) (JWK, error) {
	if key.Curve() != ecdh.P256() {
		return JWK{}, errors.New("a public key on another curve than P-256")
	}
	point := key.Bytes()[1:] // after the byte for the uncompressed form
	encode := base64.RawURLEncoding.EncodeToString
	jwk := JWK{KeyType: jwkKeyType, Curve: jwkCurve, X: encode(point[:32]), Y: encode(point[32:]), Use: jwkUse, Algorithm: JWKAlgorithm}
	jwk.KeyID = jwk.Thumbprint()
	return jwk, nil
}

// PublicKey returns the key. The error quotes no value.
func (k JWK) PublicKey() (*ecdh.PublicKey, error) {
	switch {
	case k.KeyType != jwkKeyType:
		return nil, errors.New("kty: must be EC")
	case k.Curve != jwkCurve:
		return nil, errors.New("crv: must be P-256")
	case k.Use != "" && k.Use != jwkUse:
		return nil, errors.New("use: must be enc")
	case k.Algorithm != "" && k.Algorithm != JWKAlgorithm:
		return nil, errors.New("alg: must be " + JWKAlgorithm)
	}
	point := []byte{4} // the uncompressed form
	for _, c := range []struct{ name, text string }{{"x", k.X}, {"y", k.Y}} {
		coordinate, err := base64.RawURLEncoding.Strict().DecodeString(c.text)
		if err != nil || len(coordinate) != 32 {
			return nil, fmt.Errorf("%s: must be 32 bytes in base64url", c.name)
		}
		point = append(point, coordinate...)
	}
	key, err := ecdh.P256().NewPublicKey(point)
	if err != nil {
		return nil, errors.New("x and y are no point on the curve")
	}
	return key, nil
}

// Thumbprint returns the key's thumbprint (RFC 7638, SHA-256, base64url).
func (k JWK) Thumbprint() string {
	canonical, _ := json.Marshal(struct { // strings only; the order is that of RFC 7638
		Curve   string `json:"crv"`
		KeyType string `json:"kty"`
		X       string `json:"x"`
		Y       string `json:"y"`
	}{k.Curve, k.KeyType, k.X, k.Y})
	sum := sha256.Sum256(canonical)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// privateMembers are the members of a JWK that hold a private or secret key (RFC 7518).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
