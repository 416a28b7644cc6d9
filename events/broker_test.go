package events_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events"
)

func TestTheKeyOfABroker(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"coinbase", "Coinbase", true},
		{"weBull", "WEBULL", true},
		{"binanceOAuth", "binanceoauth", true},
		{"öhmi", "ÖHMI", true},
		{"kraken", "\u212araken", true}, // KELVIN SIGN
		{"σας", "ΣΑΣ", true},
		{"coinbase", "coinbase ", false},
		{"coinbase", "coin_base", false},
		{"coinbase", "coinbasé", false},
		{"é", "e\u0301", false},
		{"straße", "strasse", false},
		{"i", "ı", false},
		{"i", "İ", false},
		{"", "a", false},
	} {
		require.Equal(t, c.same, events.SameBroker(c.a, c.b), "%q %q", c.a, c.b)
		require.Equal(t, c.same, events.BrokerKey(c.a) == events.BrokerKey(c.b), "%q %q", c.a, c.b)
	}
	require.Equal(t, "webull-2.x", events.BrokerKey("weBull-2.X"))
}

func TestTheKeyOfABrokerSaysTheSameAsTheComparison(t *testing.T) {
	t.Run("every character", func(t *testing.T) {
		for r := rune(0); r <= unicode.MaxRune; r++ {
			if !utf8.ValidRune(r) {
				continue
			}
			key := events.BrokerKey(string(r))
			if !events.SameBroker(key, string(r)) || key != events.BrokerKey(string(unicode.SimpleFold(r))) {
				t.Fatalf("%U has the key %q", r, key)
			}
			if r < unicode.MaxASCII && key != strings.ToLower(string(r)) {
				t.Fatalf("%q has the key %q", r, key)
			}
		}
	})
	text := rapid.OneOf(rapid.StringMatching(`[aAkKsS\x{212a}\x{17f} .éÉ]{0,4}`), rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		a, b := text.Draw(t, "a"), text.Draw(t, "b")
		require.Equal(t, events.SameBroker(a, b), events.BrokerKey(a) == events.BrokerKey(b))
		require.Equal(t, events.BrokerKey(a), events.BrokerKey(events.BrokerKey(a)))
	})
}
