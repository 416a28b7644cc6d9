package sealing_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events/sealing"
)

type hostileJWE struct{ name, jwe, problem string }

const token = "canary-token"

// hostile is what a sender may try.
func hostile(t testing.TB, key sealing.PrivateKey) []hostileJWE {
	public := publicOf(t, key)
	encrypt := func(alg jose.KeyAlgorithm, enc jose.ContentEncryption, to any, o *jose.EncrypterOptions) *jose.JSONWebEncryption {
		e, err := jose.NewEncrypter(enc, jose.Recipient{Algorithm: alg, Key: to, KeyID: key.Public().ID()}, o)
		require.NoError(t, err)
		jwe, err := e.Encrypt([]byte(token))
		require.NoError(t, err)
		return jwe
	}
	compact := func(jwe *jose.JSONWebEncryption) string {
		s, err := jwe.CompactSerialize()
		require.NoError(t, err)
		return s
	}
	good := jweOf(t, key.Public(), []byte(token))
	parts := strings.Split(good, ".")
	// with is the good one with another header.
	with := func(change map[string]any) string {
		raw, err := base64.RawURLEncoding.DecodeString(parts[0])
		require.NoError(t, err)
		var header map[string]any
		require.NoError(t, json.Unmarshal(raw, &header))
		for name, value := range change {
			header[name] = value
			if value == nil {
				delete(header, name)
			}
		}
		raw, err = json.Marshal(header)
		require.NoError(t, err)
		return base64.RawURLEncoding.EncodeToString(raw) + "." + strings.Join(parts[1:], ".")
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	bomb := func() string {
		e, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.ECDH_ES_A256KW, Key: public, KeyID: key.Public().ID()}, &jose.EncrypterOptions{Compression: jose.DEFLATE})
		require.NoError(t, err)
		jwe, err := e.Encrypt(bytes.Repeat([]byte{0}, 10<<20))
		require.NoError(t, err)
		return compact(jwe)
	}
	epk := func(change map[string]any) map[string]any {
		point := map[string]any{"kty": "EC", "crv": "P-256", "x": key.Public().JWK().X, "y": key.Public().JWK().Y}
		for name, value := range change {
			point[name] = value
		}
		return map[string]any{"epk": point}
	}
	raw := func(header string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + strings.Join(parts[1:], ".")
	}
	const shape, says, opens = "compact serialization", "says more than", "does not open"
	return []hostileJWE{
		{"empty", "", shape},
		{"alg none", with(map[string]any{"alg": "none"}), "alg: must be"},
		{"a JWS without signature", "eyJhbGciOiJub25lIn0.e30.", shape},
		{"no alg", with(map[string]any{"alg": nil}), "alg: must be"},
		{"alg in another case", with(map[string]any{"alg": "ecdh-es+a256kw"}), "alg: must be"},
		{"alg no text", with(map[string]any{"alg": []any{"ECDH-ES+A256KW"}}), says},
		{"dir", compact(encrypt(jose.DIRECT, jose.A256GCM, make([]byte, 32), nil)), "alg: must be"},
		{"RSA", compact(encrypt(jose.RSA_OAEP_256, jose.A256GCM, rsaKey.Public(), nil)), "alg: must be"},
		{"password", compact(encrypt(jose.PBES2_HS256_A128KW, jose.A256GCM, "password", nil)), says},
		{"direct agreement", compact(encrypt(jose.ECDH_ES, jose.A256GCM, public, nil)), "alg: must be"},
		{"weaker wrap", compact(encrypt(jose.ECDH_ES_A128KW, jose.A256GCM, public, nil)), "alg: must be"},
		{"other content", compact(encrypt(jose.ECDH_ES_A256KW, jose.A128CBC_HS256, public, nil)), "enc: must be"},
		{"shorter content", compact(encrypt(jose.ECDH_ES_A256KW, jose.A128GCM, public, nil)), "enc: must be"},
		{"zip bomb", bomb(), says},
		{"zip", with(map[string]any{"zip": "DEF"}), says},
		{"crit", with(map[string]any{"crit": []any{"exp"}, "exp": 1}), says},
		{"jwk", with(map[string]any{"jwk": key.Public().JWK()}), says},
		{"x5c", with(map[string]any{"x5c": []any{"AA=="}}), says},
		{"b64", with(map[string]any{"b64": false}), says},
		{"unknown name", with(map[string]any{token: token}), says},
		{"no kid", with(map[string]any{"kid": nil}), "kid: missing"},
		{"empty kid", with(map[string]any{"kid": ""}), "kid: missing"},
		{"wrong kid", with(map[string]any{"kid": token}), "names another key"},
		{"sealed to another under this kid", compact(encrypt(jose.ECDH_ES_A256KW, jose.A256GCM, publicOf(t, newKey(t)), nil)), opens},
		{"no epk", with(map[string]any{"epk": nil}), "epk: kty"},
		{"epk on another curve", compact(encrypt(jose.ECDH_ES_A256KW, jose.A256GCM, &p384.PublicKey, nil)), "epk: crv"},
		{"epk off the curve", with(epk(map[string]any{"x": key.Public().JWK().Y})), "no point on the curve"},
		{"epk at infinity", with(epk(map[string]any{"x": strings.Repeat("A", 43), "y": strings.Repeat("A", 43)})), "no point on the curve"},
		{"epk with a private part", with(epk(map[string]any{"d": token})), says},
		{"another's epk", with(epk(nil)), opens},
		{"apu", with(map[string]any{"apu": "AA"}), opens},
		{"huge header", with(map[string]any{"apu": strings.Repeat("A", 1<<20)}), "too large"},
		{"the same name twice", raw(`{"alg":"ECDH-ES+A256KW","alg":"none"}`), says},
		{"header no object", raw(`[]`), says},
		{"header null", raw(`null`), "alg: must be"},
		{"deep header", raw(`{"apu":` + strings.Repeat("[", 1000)), says},
		{"header not JSON", raw(token), says},
		{"header not base64", "!" + good[1:], "not in base64url"},
		{"header padded", parts[0] + "=." + strings.Join(parts[1:], "."), "not in base64url"},
		{"nested", func() string { return strings.Join([]string{parts[0], parts[1], parts[2], parts[3], good}, ".") }(), shape},
		{"truncated", good[:len(good)-2], opens},
		{"cut after the header", parts[0] + "....", opens},
		{"without tag", strings.Join(parts[:4], ".") + ".", opens},
		{"a short tag", strings.Join(parts[:4], ".") + "." + parts[4][:16], opens},
		{"a short IV", strings.Join([]string{parts[0], parts[1], parts[2][:4], parts[3], parts[4]}, "."), opens},
		{"no wrapped key", strings.Join([]string{parts[0], "", parts[2], parts[3], parts[4]}, "."), opens},
		{"four parts", strings.Join(parts[:4], "."), shape},
		{"six parts", good + ".AA", shape},
		{"line breaks", good[:40] + "\n" + good[40:], "base64url"},
		{"line breaks in the ciphertext", strings.Join([]string{parts[0], parts[1], parts[2], "\n" + parts[3], parts[4]}, "."), "base64url"},
		{"JSON serialization", encrypt(jose.ECDH_ES_A256KW, jose.A256GCM, public, nil).FullSerialize(), shape},
		{"JSON serialization with dots", `{"protected":"` + parts[0] + `","x":"...."}`, "base64url"},
		{"NUL", "\x00.\x00.\x00.\x00.\x00", "base64url"},
	}
}

// publicOf is the key as the JOSE library takes it.
func publicOf(t testing.TB, key sealing.PrivateKey) *ecdsa.PublicKey {
	point, err := key.Public().JWK().PublicKey()
	require.NoError(t, err)
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point.Bytes())
	require.NoError(t, err)
	return public
}

func TestHostileJWEs(t *testing.T) {
	key := newKey(t)
	for _, c := range hostile(t, key) {
		t.Run(c.name, func(t *testing.T) {
			sealed, err := sealing.Parse(c.jwe)
			if err == nil {
				_, err = sealed.Open(key)
			}
			requireOpenError(t, err)
			require.ErrorContains(t, err, c.problem)
			require.NotContains(t, err.Error(), token)
		})
	}
}
