//go:build !race

package tokens

import "testing"

// TestGuardAllocations fails when a request for the tokens of a user who was
// asked for before takes half as many allocations again as it did. The race
// detector makes more.
func TestGuardAllocations(t *testing.T) {
	const limit = 31
	if n := testing.AllocsPerRun(200, warmRequest(t)); n > limit {
		t.Errorf("%v allocations, at most %d are expected", n, limit)
	}
}
