//go:build !race

package store_test

import "testing"

// TestGuardAllocations fails when work that is done for every request or message
// takes half as many allocations again as it did. The race detector makes more.
func TestGuardAllocations(t *testing.T) {
	limits := map[string]float64{
		"seal tokens": 7, "open tokens": 10, "open access": 2, "marshal grant": 19, "unmarshal grant": 97,
	}
	for name, do := range operations(t) {
		if n := testing.AllocsPerRun(200, do); n > limits[name] {
			t.Errorf("%s: %v allocations, at most %v are expected", name, n, limits[name])
		}
	}
}
