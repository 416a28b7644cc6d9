//go:build !race

package enginestest

// RaceDetector: see the build with it.
const RaceDetector = false
