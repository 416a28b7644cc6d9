package events

// TokenKeysName is the key set's name in errors.
const TokenKeysName = "token.keys"

// TokenKeys answers a request on Subjects.TokenKeys: the public keys to seal to, as a
// JSON Web Key Set (RFC 7517).
type TokenKeys struct {
	// Keys begins with the key to use. The others are being replaced, and still open.
	Keys []JWK `json:"keys"`
}

// DecodeTokenKeys reads a key set, without keys of other types. Every error is an
// *InvalidError.
func DecodeTokenKeys(body []byte) (TokenKeys, error) {
	var in TokenKeys
	if err := decodeStrict(TokenKeysName, body, &in); err != nil {
		return TokenKeys{}, err
	}
	var out TokenKeys
	for _, key := range in.Keys {
		if _, err := key.PublicKey(); err == nil {
			out.Keys = append(out.Keys, key)
		}
	}
	if len(out.Keys) == 0 {
		return TokenKeys{}, invalid(TokenKeysName, "no key for %s on P-256", JWKAlgorithm)
	}
	return out, nil
}
