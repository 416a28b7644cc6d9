// Package envelope seals and opens secrets by envelope encryption.
//
// A key encryption key (KEK) lives in KMS and never leaves it. Under it KMS
// makes data keys: AES-256 keys of which we keep the wrapped form for good and
// the plain form in memory for a while. A data key seals many blobs with
// AES-256-GCM, each under a fresh random nonce.
//
// What a blob belongs to is not stored in it. The caller states it as a
// [Binding] on both sides, and a blob that was copied to another user, broker
// or grant, rolled back to an older version, or moved under another data key
// does not open. A data key is bound to its id by the KMS encryption context.
package envelope

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
)

// Blob is a sealed secret.
type Blob struct {
	// KeyID names the data key.
	KeyID string `bson:"key"`
	// Data is the format byte, the nonce, the ciphertext and the tag.
	Data []byte `bson:"data"`
}

// Binding is what a blob belongs to. It goes into the additional data.
type Binding struct {
	// Purpose separates blobs of different kinds, such as PurposeTokenSet.
	Purpose string
	User    string
	Broker  string
	Grant   string
	Version int64
}

// Purposes of blobs.
const (
	PurposeTokenSet   = "token-set"
	PurposeRecovery   = "recovery"
	PurposeDeadLetter = "dead-letter"
	PurposeConnectKey = "connect-key"

	PurposeFingerprintKey = "fingerprint-key"
)

// ErrSealed is returned for a blob that does not open: it was changed, cut, or
// belongs to something else than stated.
var ErrSealed = errors.New("the sealed blob does not open under its binding")

const (
	format    = 1
	keySize   = 32
	nonceSize = 12
	tagSize   = 16
	overhead  = 1 + nonceSize + tagSize
)

// additionalData encodes format, key id and binding so that no two different
// bindings give the same bytes: each text is preceded by its length.
func additionalData(keyID string, b Binding) []byte {
	texts := [...]string{keyID, b.Purpose, b.User, b.Broker, b.Grant}
	size := 1 + 8
	for _, s := range texts {
		size += 4 + len(s)
	}
	out := make([]byte, 0, size)
	out = append(out, format)
	for _, s := range texts {
		out = binary.BigEndian.AppendUint32(out, uint32(len(s)))
		out = append(out, s...)
	}
	return binary.BigEndian.AppendUint64(out, uint64(b.Version))
}

func sealWith(aead cipher.AEAD, keyID string, plaintext []byte, b Binding) Blob {
	data := make([]byte, 1, len(plaintext)+overhead)
	data[0] = format
	return Blob{KeyID: keyID, Data: aead.Seal(data, nil, plaintext, additionalData(keyID, b))}
}

func openWith(aead cipher.AEAD, blob Blob, b Binding) ([]byte, error) {
	if len(blob.Data) < overhead || blob.Data[0] != format {
		return nil, ErrSealed
	}
	plaintext, err := aead.Open(nil, nil, blob.Data[1:], additionalData(blob.KeyID, b))
	if err != nil {
		return nil, ErrSealed
	}
	return plaintext, nil
}
