package enginestest

import (
	"testing"
	"time"
)

// patience bounds every wait, which ends as soon as something comes.
const patience = time.Minute

// Receive returns what comes through a channel next.
func Receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}
