package meshsim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"

	"github.com/latchkey/latchkey/events/secret"
)

// Fingerprint identifies a token: its SHA-256, in hexadecimal.
type Fingerprint string

// FingerprintOf returns the fingerprint of a token, "" for none.
func FingerprintOf(token secret.Text) Fingerprint {
	if token.Empty() {
		return ""
	}
	sum := sha256.Sum256([]byte(token.Reveal()))
	return Fingerprint(hex.EncodeToString(sum[:]))
}

// mint derives tokens from a seed: the same place in the same chain always yields the
// same token.
type mint struct{ seed secret.Text }

func (m mint) refresh(chain, n int) secret.Text {
	return m.derive("refresh", fmt.Sprintf("%d/%d", chain, n))
}

// access returns the nth access token of a chain, whatever account it is for.
func (m mint) access(chain, n int) secret.Text {
	return m.derive("access", fmt.Sprintf("%d/%d", chain, n))
}

func (m mint) trade(chain int) secret.Text { return m.derive("trade", fmt.Sprint(chain)) }

func (m mint) derive(kind, place string) secret.Text {
	mac := hmac.New(sha256.New, []byte(m.seed.Reveal()))
	mac.Write([]byte(kind + "/" + place))
	return secret.New("sim-" + kind + "-" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
}
