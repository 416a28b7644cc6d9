package envelope

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestAdditionalDataIsInjective(t *testing.T) {
	type stated struct {
		KeyID string
		Binding
	}
	// Few and short texts, so that many pairs concatenate to the same.
	texts := rapid.StringMatching(`[ab\x00]{0,3}`)
	draw := rapid.Custom(func(t *rapid.T) stated {
		return stated{texts.Draw(t, "key"), Binding{
			Purpose: texts.Draw(t, "purpose"), User: texts.Draw(t, "user"), Broker: texts.Draw(t, "broker"),
			Grant: texts.Draw(t, "grant"), Version: rapid.Int64Range(-1, 1).Draw(t, "version"),
		}}
	})
	seen := map[string]stated{}
	rapid.Check(t, func(t *rapid.T) {
		s := draw.Draw(t, "stated")
		data := string(additionalData(s.KeyID, s.Binding))
		if before, ok := seen[data]; ok {
			require.Equal(t, before, s)
		}
		seen[data] = s
	})
	require.NotEqual(t,
		additionalData("k", Binding{User: "ab", Broker: "c"}),
		additionalData("k", Binding{User: "a", Broker: "bc"}))
}

func BenchmarkAdditionalData(b *testing.B) {
	binding := Binding{
		Purpose: PurposeTokenSet, User: "3f1c9a52-1d0e-4b53-9a3c-0c4f6f0f2f11", Broker: "coinbase",
		Grant: "q3l6n7s5i2f4a6b7c2d3e4f5g6h7i2j3", Version: 42,
	}
	b.ReportAllocs()
	for b.Loop() {
		additionalData("0123456789abcdef0123456789abcdef", binding)
	}
}
