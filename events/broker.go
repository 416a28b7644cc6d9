package events

import (
	"strings"
	"unicode"
)

// SameBroker reports whether two broker types name the same broker. Only case (Unicode
// simple case folding) makes no difference.
func SameBroker(a, b string) bool { return strings.EqualFold(a, b) }

// BrokerKey returns the form of a broker type for hashes and map keys: two broker types
// have the same key exactly if they are the [SameBroker]. For an ASCII name it is the
// lower case. Mesh and subscribers get the broker type as Mesh wrote it.
func BrokerKey(brokerType string) string { return strings.Map(foldRune, brokerType) }

// foldRune returns one character for all that differ from r in case only.
func foldRune(r rune) rune {
	if unicode.SimpleFold(r) == r {
		return r
	}
	least := r
	for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
		least = min(least, other)
	}
	return unicode.ToLower(least)
}
