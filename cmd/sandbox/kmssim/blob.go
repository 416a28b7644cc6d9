package kmssim

import (
	"encoding/binary"
	"maps"
	"slices"
)

// A ciphertext blob is
//
//	version (1 byte) | key id (36) | nonce (12) | AES-256-GCM ciphertext and tag
//
// with version, key id and encryption context as additional data.
const (
	blobVersion  = 1
	headerLength = 1 + keyIDLength
	nonceLength  = 12
	tagLength    = 16
)

func seal(k *key, context map[string]string, plaintext []byte) ([]byte, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, err
	}
	blob := append([]byte{blobVersion}, k.ID...)
	return aead.Seal(blob, nil, plaintext, additionalData(blob, context)), nil
}

func blobKeyID(blob []byte) (string, error) {
	if len(blob) < headerLength+nonceLength+tagLength || blob[0] != blobVersion {
		return "", invalidCiphertext()
	}
	return string(blob[1:headerLength]), nil
}

// unseal decrypts a blob whose header blobKeyID has accepted.
func unseal(k *key, context map[string]string, blob []byte) ([]byte, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, err
	}
	plaintext, err := aead.Open(nil, nil, blob[headerLength:], additionalData(blob[:headerLength], context))
	if err != nil {
		return nil, invalidCiphertext()
	}
	return plaintext, nil
}

// additionalData joins header and encryption context, sorted by name. Lengths keep
// {"a": "bc"} and {"ab": "c"} apart.
func additionalData(header []byte, context map[string]string) []byte {
	data := slices.Clone(header)
	for _, name := range slices.Sorted(maps.Keys(context)) {
		for _, s := range []string{name, context[name]} {
			data = binary.BigEndian.AppendUint32(data, uint32(len(s)))
			data = append(data, s...)
		}
	}
	return data
}
