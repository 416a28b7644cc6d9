//go:build race

package enginestest

// RaceDetector: the test is built with the race detector, which makes the
// embedded engines several times slower.
const RaceDetector = true
