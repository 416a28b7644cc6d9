//go:build !race

package refresher_test

const raceDetector = false
