package store_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

// operations returns what is timed, and of which allocations are guarded.
func operations(t testing.TB) map[string]func() {
	e := sealing(t)
	sealer, err := e.Sealer(t.Context(), "user")
	require.NoError(t, err)
	g := active("g")
	set := store.TokenSet{
		Accounts:     []store.AccountToken{{AccountID: "acc-1", AccessToken: secret.New(strings.Repeat("a", 100))}},
		RefreshToken: secret.New(strings.Repeat("r", 100)), Origin: strings.Repeat("0", 64),
	}
	g.Sealed = store.SealTokens(sealer, set, g.Binding())
	document, err := bson.Marshal(g)
	require.NoError(t, err)
	return map[string]func(){
		"seal tokens": func() { store.SealTokens(sealer, set, g.Binding()) },
		"open tokens": func() {
			_, err := store.OpenTokens(t.Context(), e, g.Sealed, g.Binding())
			require.NoError(t, err)
		},
		"open access": func() {
			_, texts, err := store.OpenAccess(t.Context(), e, g)
			require.NoError(t, err)
			texts.Wipe()
		},
		"marshal grant": func() {
			_, err := bson.Marshal(g)
			require.NoError(t, err)
		},
		"unmarshal grant": func() { require.NoError(t, bson.Unmarshal(document, &store.Grant{})) },
	}
}

func BenchmarkStore(b *testing.B) {
	for name, do := range operations(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}
