package sealing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// PrivateKey opens what was sealed to its public part. It can't be printed.
type PrivateKey struct {
	key    *ecdsa.PrivateKey
	public PublicKey
}

func GenerateKey() (PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("making a key: %w", err)
	}
	return newPrivateKey(key)
}

// ParsePrivateKey reads what Bytes wrote. The error quotes no value.
func ParsePrivateKey(b []byte) (PrivateKey, error) {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), b)
	if err != nil {
		return PrivateKey{}, errors.New("not a private key on P-256")
	}
	return newPrivateKey(key)
}

func newPrivateKey(key *ecdsa.PrivateKey) (PrivateKey, error) {
	point, err := key.PublicKey.ECDH()
	if err != nil {
		return PrivateKey{}, errors.New("not a private key on P-256")
	}
	jwk, err := events.NewJWK(point)
	return PrivateKey{key: key, public: PublicKey{jwk: jwk, key: &key.PublicKey}}, err
}

// Bytes returns the key, 32 bytes. The caller must not log it or store it unencrypted.
func (k PrivateKey) Bytes() ([]byte, error) {
	b, err := k.key.Bytes()
	if err != nil {
		return nil, errors.New("encoding a private key failed")
	}
	return b, nil
}

// Public returns the public part.
func (k PrivateKey) Public() PublicKey { return k.public }

// Format implements fmt.Formatter, so that no verb prints the key.
func (k PrivateKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(secret.Redacted)) }

// MarshalText implements encoding.TextMarshaler; JSON and YAML encoders use it.
func (k PrivateKey) MarshalText() ([]byte, error) { return []byte(secret.Redacted), nil }
