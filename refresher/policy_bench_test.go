package refresher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// operations returns what is timed, and of which allocations are guarded.
func operations(t testing.TB) map[string]func() {
	s := settler(newClock(sentAt.Add(time.Second)), 0)
	g, tokens, got := newGrant(withAccounts("one")), newTokens("one"), answer("one")
	return map[string]func(){
		"next": func() { require.NotNil(t, s.Policy.Next(g)) },
		"answered": func() {
			_, err := s.ApplyAnswer(g.Clone(), tokens, got, false, 7, sentAt)
			require.NoError(t, err)
		},
	}
}

func BenchmarkDecision(b *testing.B) {
	for name, do := range operations(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}
