package envelope_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// operations returns what is timed, and of which allocations are guarded.
func operations(t testing.TB) map[string]func() {
	e := newFixture(t).envelope()
	plaintext := []byte(strings.Repeat("x", 400))
	sealer, err := e.Sealer(t.Context(), "user")
	require.NoError(t, err)
	blob := sealer.Seal(plaintext, binding)
	return map[string]func(){
		"seal": func() { sealer.Seal(plaintext, binding) },
		"open": func() { // with its data key at hand
			_, err := e.Open(t.Context(), blob, binding)
			require.NoError(t, err)
		},
		"sealer": func() { // likewise
			_, err := e.Sealer(t.Context(), "user")
			require.NoError(t, err)
		},
	}
}

func BenchmarkEnvelope(b *testing.B) {
	for name, do := range operations(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}
