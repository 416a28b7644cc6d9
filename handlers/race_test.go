//go:build race

package handlers

// raceDetector: the test is built with the race detector, which makes the
// embedded engines several times slower.
const raceDetector = true
