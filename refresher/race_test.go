//go:build race

package refresher_test

// raceDetector: the test is built with the race detector, which makes the
// embedded engines several times slower.
const raceDetector = true
