//go:build !race

package events_test

import "testing"

// TestGuardAllocations fails when work that is done for every request or message
// takes half as many allocations again as it did. The race detector makes more.
func TestGuardAllocations(t *testing.T) {
	limits := map[string]float64{
		"decode connect": 33, "decode token request": 3, "decode subject": 0, "encode reply": 7, "encode event": 21,
	}
	for name, do := range operations(t) {
		if n := testing.AllocsPerRun(200, do); n > limits[name] {
			t.Errorf("%s: %v allocations, at most %v are expected", name, n, limits[name])
		}
	}
}
