package store

import (
	"bytes"
	"reflect"
	"testing"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events/secret"
)

// A buffer that had to grow would leave a part of the tokens in memory that nobody wipes.
func TestTheJSONOfTokensFitsIntoItsBuffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Custom(func(t *rapid.T) string {
			return string(rapid.SliceOf(rapid.SampledFrom([]byte{0, '\n', '"', '\\', '<', 0x7f, 0x80, 0xc3, 0xa9, 0xe2, 0x80, 0xa8, 0xff, 'a', 'z'})).Draw(t, "bytes"))
		})
		hidden := rapid.Map(text, secret.New)
		set := TokenSet{
			RefreshToken: hidden.Draw(t, "refresh"), TradeToken: hidden.Draw(t, "trade"), Interim: hidden.Draw(t, "interim"), Origin: text.Draw(t, "origin"),
			Metadata: rapid.MapOf(text, hidden).Draw(t, "metadata"), Spare: rapid.SliceOf(hidden).Draw(t, "spare"), Leftovers: rapid.SliceOf(hidden).Draw(t, "left"),
		}
		for range rapid.IntRange(0, 4).Draw(t, "accounts") {
			set.Accounts = append(set.Accounts, AccountToken{text.Draw(t, "id"), hidden.Draw(t, "access"), hidden.Draw(t, "token id"), hidden.Draw(t, "own")})
		}
		size := set.jsonSize()
		want, err := jsonv2.Marshal(&set, jsontext.AllowInvalidUTF8(true), revealing)
		if err != nil { // two keys of the metadata are the same once they are valid UTF-8
			t.Skip()
		}
		require.LessOrEqual(t, len(want), size)
		got := set.marshal()
		require.Len(t, got, len(want))
		require.Equal(t, size+size/3+1, cap(got), "another buffer than the first")
	})
}

// The encoders of the JSON package are pooled, and their buffers keep what they encoded.
func TestSealingLeavesNoTokensInPooledEncoders(t *testing.T) {
	const token = "eyJCANARYx7Q-left-in-an-encoder"
	set := TokenSet{Accounts: []AccountToken{{AccountID: "a", AccessToken: secret.New(token)}}, RefreshToken: secret.New(token)}
	clear(set.marshal())
	for range 10 {
		var p probe
		_, err := jsonv2.Marshal(&p)
		require.NoError(t, err)
		require.NotContains(t, string(p.seen), token)
	}
}

// probe sees the memory of the encoder that encodes it.
type probe struct{ seen []byte }

func (p *probe) MarshalJSONTo(enc *jsontext.Encoder) error {
	buf := reflect.ValueOf(enc).Elem().FieldByName("s").FieldByName("Buf").Bytes()
	p.seen = bytes.Clone(buf[:cap(buf)])
	return enc.WriteToken(jsontext.Null)
}
