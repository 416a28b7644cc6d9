package events_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// TestMetadataIsBounded: what can't be kept of it is left out and told without its text,
// and never refuses the connect.
func TestMetadataIsBounded(t *testing.T) {
	var many []string
	for i := range 20 {
		many = append(many, fmt.Sprintf(`"n%d":"v"`, i))
	}
	for metadata, want := range map[string]struct{ kept, left int }{
		`{"region":"eu","x":""}`:                    {2, 0},
		`null`:                                      {0, 0},
		`{"a":null}`:                                {0, 0},
		`"` + canary + `"`:                          {0, 1},
		`{"a":7,"b":"c"}`:                           {1, 1},
		`{"` + canary + `.":"` + canary + `"}`:      {0, 1},
		`{"a":"` + canary + `","a":"other"}`:        {0, 1},
		`{"a":"` + strings.Repeat("x", 1025) + `"}`: {0, 1},
		`{"a":"` + strings.Repeat("x", 1024) + `"}`: {1, 0},
		`{"a":"` + canary + `\u0000"}`:              {0, 1},
		`{` + strings.Join(many, ",") + `}`:         {16, 4},
	} {
		c, err := events.DecodeConnected([]byte(`{"userId":"u","metadata":` + metadata + `,"payload":{"refreshToken":"r","brokerType":"b"}}`))
		require.NoError(t, err, metadata)
		require.Len(t, c.Metadata, want.kept, metadata)
		require.Len(t, c.LeftOut, want.left, metadata)
		require.NotContains(t, strings.Join(c.LeftOut, "\n"), canary)
		require.NotContains(t, fmt.Sprintf("%v %+v %#v", c, c, c), "eu")
	}
}
