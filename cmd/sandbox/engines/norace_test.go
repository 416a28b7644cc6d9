//go:build !race

package engines_test

const raceDetector = false
