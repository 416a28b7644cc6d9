package events

import (
	"strings"
	"unicode"
)

// SameBroker reports whether two broker types name one broker: case makes no
// difference (Unicode simple case folding), everything else does, white space
// included.
func SameBroker(a, b string) bool { return strings.EqualFold(a, b) }

// BrokerKey returns the form of a broker type to hash it by or to use as the key
// of a map: two broker types have the same key exactly if they are the
// [SameBroker]. It only compares: Mesh and subscribers get the broker type as
// Mesh wrote it. The key of an ASCII name is its lower case.
func BrokerKey(brokerType string) string { return strings.Map(foldRune, brokerType) }

// foldRune picks one of the characters that differ from r in nothing but case.
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
