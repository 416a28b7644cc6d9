package sealing_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/sealing"
	"github.com/latchkey/latchkey/events/secret"
)

func newKey(t require.TestingT) sealing.PrivateKey {
	key, err := sealing.GenerateKey()
	require.NoError(t, err)
	return key
}

// jweOf seals and returns the JWE alone.
func jweOf(t require.TestingT, key sealing.PublicKey, body []byte) string {
	sealed, err := key.Seal(body)
	require.NoError(t, err)
	var out struct{ Sealed string }
	require.NoError(t, json.Unmarshal(sealed, &out))
	return out.Sealed
}

func TestWhatIsSealedOpensForItsReaderOnly(t *testing.T) {
	key, other := newKey(t), newKey(t)
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		jwe := jweOf(t, key.Public(), body)
		sealed, err := sealing.Parse(jwe)
		require.NoError(t, err)
		require.Equal(t, key.Public().ID(), sealed.KeyID())
		opened, err := sealed.Open(key)
		require.NoError(t, err)
		require.Equal(t, append([]byte{}, body...), append([]byte{}, opened...))

		_, err = sealed.Open(other)
		requireOpenError(t, err)

		// No character of it may be another.
		at := rapid.IntRange(0, len(jwe)-1).Draw(t, "at")
		changed := []byte(jwe)
		changed[at] = rapid.SampledFrom([]byte("ABCDEFabcdef0123-_.=\n {\"\x00\xff")).Draw(t, "to")
		if string(changed) != jwe {
			sealed, err := sealing.Parse(string(changed))
			if err == nil {
				_, err = sealed.Open(key)
			}
			requireOpenError(t, err)
		}
	})
}

func requireOpenError(t require.TestingT, err error) {
	var refused *sealing.OpenError
	require.ErrorAs(t, err, &refused)
	require.Less(t, len(err.Error()), 200)
}

func TestKeysSurviveBeingStored(t *testing.T) {
	key := newKey(t)
	b, err := key.Bytes()
	require.NoError(t, err)
	again, err := sealing.ParsePrivateKey(b)
	require.NoError(t, err)
	require.Equal(t, key.Public().JWK(), again.Public().JWK())
	for _, bad := range [][]byte{nil, b[1:], make([]byte, 32)} {
		_, err := sealing.ParsePrivateKey(bad)
		require.Error(t, err)
	}
}

func TestPrivateKeysDoNotPrint(t *testing.T) {
	key := newKey(t)
	for _, v := range []any{key, &key, []sealing.PrivateKey{key}, struct{ K sealing.PrivateKey }{key}} {
		require.Contains(t, fmt.Sprintf("%v %+v %#v %s %x %d", v, v, v, v, v, v), secret.Redacted)
		require.NotRegexp(t, `\d{6}`, strings.ReplaceAll(fmt.Sprintf("%v %+v %s %d", v, v, v, v), "0x", ""))
	}
	b, err := json.Marshal(key)
	require.NoError(t, err)
	require.Equal(t, `"`+secret.Redacted+`"`, string(b))
}

func TestParseKeysTakesTheFirst(t *testing.T) {
	first, second := newKey(t).Public(), newKey(t).Public()
	jwks, err := json.Marshal(events.TokenKeys{Keys: []events.JWK{first.JWK(), second.JWK()}})
	require.NoError(t, err)
	key, err := sealing.ParseKeys(jwks)
	require.NoError(t, err)
	require.Equal(t, first.ID(), key.ID())
	require.Equal(t, first.JWK().Thumbprint(), key.ID())
	_, err = sealing.ParseKeys([]byte(`{"keys":[]}`))
	require.Error(t, err)

	renamed := first.JWK()
	renamed.KeyID, renamed.Use = "mine", ""
	key, err = sealing.NewPublicKey(renamed)
	require.NoError(t, err)
	require.Equal(t, first.JWK(), key.JWK(), "a key is named by what it is")
	_, err = sealing.NewPublicKey(events.JWK{})
	require.Error(t, err)
	_, err = sealing.PublicKey{}.Seal(nil)
	require.Error(t, err)
}

func TestOpenReply(t *testing.T) {
	key := newKey(t)
	reply := events.TokenReply{
		AccessTokens: []events.IntegrationAccessToken{{AccountID: "a", AccessToken: secret.New("token"), BrokerType: "b"}},
		Expiries:     []events.TokenExpiry{{AccountID: "a", GrantID: "g"}},
	}
	plain, err := reply.Encode()
	require.NoError(t, err)
	sealed, err := key.Public().Seal(plain)
	require.NoError(t, err)
	opened, err := sealing.OpenReply(sealed, key)
	require.NoError(t, err)
	require.Equal(t, reply, opened)

	twice, err := key.Public().Seal(sealed)
	require.NoError(t, err)
	for _, body := range []string{string(plain), `{"sealed":"x"}`, `{"sealed":7}`, "", string(twice)} {
		_, err := sealing.OpenReply([]byte(body), key)
		require.Error(t, err, body)
	}
	_, err = sealing.OpenReply(sealed, newKey(t))
	requireOpenError(t, err)
	_, err = sealing.OpenReply(sealed, sealing.PrivateKey{})
	requireOpenError(t, err)
}

// A publisher who does not seal draws in nothing of this.
func TestEventsDoNotNeedJOSE(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "github.com/latchkey/latchkey/events").CombinedOutput()
	require.NoError(t, err, string(out))
	require.NotContains(t, string(out), "jose")
	require.NotContains(t, string(out), "latchkey/events/sealing")
}

func FuzzOpen(f *testing.F) {
	key := newKey(f)
	for _, c := range hostile(f, key) {
		f.Add(c.jwe)
	}
	valid := jweOf(f, key.Public(), []byte(`{"userId":"u"}`))
	f.Add(valid)
	f.Fuzz(func(t *testing.T, jwe string) {
		sealed, err := sealing.Parse(jwe)
		if err == nil {
			_, err = sealed.Open(key)
		}
		var refused *sealing.OpenError
		if err != nil && !errors.As(err, &refused) {
			t.Fatalf("%T", err)
		}
		// Only what was sealed opens, and in one form only.
		if err == nil && jwe != valid {
			t.Fatal("opened what was never sealed")
		}
	})
}
