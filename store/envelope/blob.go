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

// Binding is what a blob belongs to: the additional data of the AEAD.
type Binding struct {
	// Purpose separates kinds of blobs.
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

// ErrSealed: a blob does not open, since it was changed or has another binding.
var ErrSealed = errors.New("the sealed blob does not open under its binding")

const (
	format    = 1
	keySize   = 32
	nonceSize = 12
	tagSize   = 16
	overhead  = 1 + nonceSize + tagSize
)

// additionalData encodes format, key id and binding. Each text is preceded by its length,
// so that different bindings give different bytes.
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

func openWith(aead cipher.AEAD, into []byte, blob Blob, b Binding) ([]byte, error) {
	if len(blob.Data) < overhead || blob.Data[0] != format {
		return into, ErrSealed
	}
	plaintext, err := aead.Open(into, nil, blob.Data[1:], additionalData(blob.KeyID, b))
	if err != nil {
		return into, ErrSealed
	}
	return plaintext, nil
}
