package refresher

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is packed in an answer can be far larger than the answer.
func TestTheSearchOfAnAnswerIsBounded(t *testing.T) {
	packed := []byte(strings.Repeat("x ", 4<<20))
	for range 3 {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		_, err := z.Write(packed)
		require.NoError(t, err)
		require.NoError(t, z.Close())
		packed = []byte(strings.Repeat(base64.StdEncoding.EncodeToString(out.Bytes())+" ", 8))
	}
	s := search{left: 1 << 20}
	require.Equal(t, doubtful, s.doubtOf(string(packed), 0), "what is not looked through may hold a token")
	require.Zero(t, s.left)
	s = search{left: 1 << 10}
	require.Equal(t, named, s.doubtOf(`refreshToken="0123456789abcdef"`+strings.Repeat(" ", 1<<10), 0), "what is looked through counts")
}
