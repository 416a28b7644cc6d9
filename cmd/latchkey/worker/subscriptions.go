package worker

import (
	"errors"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// subscriptions are those that a server has ended: it does so when it reads a
// configuration by which the user may not have them. It does not tell when the user
// may have them again, and then gives back none. So the client connects anew, and
// with that asks for all of them, until none of these is refused.
type subscriptions struct {
	mu sync.Mutex
	// refused are the subjects that the user never had since the client connected
	// first: nothing was taken away.
	refused map[string]bool
	// waits: the next attempt is planned. pause is how long it waits.
	waits bool
	pause time.Duration
}

// Bounds of the pause before the client connects anew.
const (
	askPauseMin = time.Second
	askPauseMax = time.Minute
)

// A server that ends a subscription names it with its id ("sid"), one that refuses
// a new subscription does not.
var refusedSubscription = regexp.MustCompile(`Subscription to "([^"]+)"`)

// heard takes an error that NATS reports of a connection.
func (s *subscriptions) heard(nc *nats.Conn, err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	found := refusedSubscription.FindStringSubmatch(err.Error())
	if found == nil {
		return // it is about publishing
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := strings.Contains(err.Error(), `(sid "`)
	if !ended && (nc.Stats().Reconnects == 0 || s.refused[found[1]]) {
		s.refused[found[1]] = true
		return
	}
	switch {
	case s.waits:
		return
	case ended:
		s.pause = askPauseMin
	default:
		s.pause = min(max(2*s.pause, askPauseMin), askPauseMax)
	}
	s.waits = true
	time.AfterFunc(s.pause, func() {
		s.mu.Lock()
		s.waits = false
		s.mu.Unlock()
		_ = nc.ForceReconnect() // fails when the connection is closed for good
	})
}
