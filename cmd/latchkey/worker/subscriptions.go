package worker

import (
	"errors"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/time/rate"
)

// subscriptions restores subscriptions that a server has ended. A server does so when
// it reloads a configuration that takes the permission away; it neither says when the
// permission is back nor restores the subscription. So the client reconnects, which
// subscribes to everything again, until the server refuses none of them.
type subscriptions struct {
	mu sync.Mutex
	// changes begins the subjects of subscriptions that come and go with the users whom a
	// worker keeps. It tries these again by itself.
	changes string
	// refused holds subjects that the server has always refused: it took nothing away.
	refused map[string]bool
	// told limits what is logged about changes, by what comes before their subjects.
	told map[string]*rate.Sometimes
	// planned: the client will reconnect after the pause.
	planned bool
	pause   time.Duration
}

// Bounds of the pause before the client reconnects.
const (
	minReconnectPause = time.Second
	maxReconnectPause = time.Minute
)

// The error of a subscription that a server ends has the subscription's id ("sid"); that
// of a new subscription which it refuses has none.
var refusedSubscription = regexp.MustCompile(`Subscription to "([^"]+)"`)

// seldom calls log, but only once a minute for errors of a kind of which there may be one for
// each user whom a worker keeps, or for each change.
func (s *subscriptions) seldom(about string, log func()) {
	kind, _, many := strings.Cut(about, s.changes)
	if !many && about != nats.ErrMaxSubscriptionsExceeded.Error() {
		log()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told[kind] == nil {
		s.told[kind] = &rate.Sometimes{Interval: time.Minute}
	}
	s.told[kind].Do(log)
}

// onError handles an asynchronous error of a connection.
func (s *subscriptions) onError(nc *nats.Conn, err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	found := refusedSubscription.FindStringSubmatch(err.Error())
	if found == nil {
		return // it is about publishing
	}
	if strings.HasPrefix(found[1], s.changes) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := strings.Contains(err.Error(), `(sid "`)
	if !ended && (nc.Stats().Reconnects == 0 || s.refused[found[1]]) {
		s.refused[found[1]] = true
		return
	}
	switch {
	case s.planned:
		return
	case ended:
		s.pause = minReconnectPause
	default:
		s.pause = min(max(2*s.pause, minReconnectPause), maxReconnectPause)
	}
	s.planned = true
	time.AfterFunc(s.pause, func() {
		s.mu.Lock()
		s.planned = false
		s.mu.Unlock()
		_ = nc.ForceReconnect() // fails when the connection is closed for good
	})
}
