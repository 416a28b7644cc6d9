package worker_test

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
)

// swallower keeps one answer from the worker: one of the next of a kind. It notes
// the kinds that it sees.
type swallower struct {
	mu    sync.Mutex
	kinds map[string]bool
	next  string        // kind of the answer to keep; empty: none
	pass  int           // how many of that kind to let pass before
	kept  chan struct{} // closed when it was
}

func (s *swallower) saw(kind string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kinds[kind] = true
	if s.next != kind {
		return false
	}
	if s.pass--; s.pass >= 0 {
		return false
	}
	s.next = ""
	close(s.kept)
	return true
}

// arm has an answer of a kind kept: the next, after some that pass.
func (s *swallower) arm(kind string, pass int) (kept <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next, s.pass, s.kept = kind, pass, make(chan struct{})
	return s.kept
}

func (s *swallower) disarm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = ""
}

// take returns the kinds seen since the last take.
func (s *swallower) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Sorted(maps.Keys(s.kinds))
	clear(s.kinds)
	return all
}

// particular is a part of a subject that differs from grant to grant, from user
// to user, or from worker to worker.
var particular = regexp.MustCompile(`[a-z0-9]{24,}|walk-[0-9]+|_INBOX.*|[A-Za-z0-9]{22}|[^.]*-[0-9a-f]{8}-[0-9a-f-]*|[0-9]{2,}`)

func kindOfSubject(subject string) string { return particular.ReplaceAllString(subject, "*") }

// walk is an installation whose worker misses single answers.
type walk struct {
	*harness
	*swallower
	settings []string
	atStart  []string // kinds of answers that a start waits for
	worker   *running
	lives    int
}

func newWalk(t *testing.T) *walk {
	t.Helper()
	w := &walk{swallower: &swallower{kinds: map[string]bool{}}}
	// The institution takes a token twice: that it may is what makes a lost answer
	// harmless here, and is no subject of this test.
	w.harness = startWith(t, stack.Options{
		Institutions: map[string]meshsim.Institution{"coinbase": {AccessLifetime: life, RefreshLifetime: 24 * life, Grace: life}},
		KMSFault:     func(r *http.Request) bool { return w.saw("KMS " + r.Header.Get("X-Amz-Target")) },
		MeshFault:    func(r *http.Request) bool { return w.saw("Mesh " + r.Method + " " + r.URL.Path) },
	})
	if w.stack.NATS == nil || w.stack.MongoDB == nil {
		t.Skip("needs embedded engines")
	}
	proxy, err := engines.StartNATSProxy(w.stack.NATS)
	require.NoError(t, err)
	t.Cleanup(proxy.Stop)
	proxy.Swallow(func(asked, subject string) bool {
		if asked != "" {
			return w.saw("NATS answer to " + kindOfSubject(asked))
		}
		if strings.HasPrefix(subject, "token.get.") {
			return false // that wait is the caller's
		}
		return w.saw("NATS message " + kindOfSubject(subject))
	})
	w.stack.MongoDB.Proxy().Swallow(func(command, collection string) bool {
		switch command {
		case "hello", "isMaster", "ismaster", "ping", "":
			return false // the driver's own
		}
		return w.saw("MongoDB " + command + " " + collection)
	})
	w.requestTimeout = time.Second
	w.settings = []string{
		"LATCHKEY_NATS_URL=" + proxy.URL(), "LATCHKEY_MONGODB_TIMEOUT=1s", "LATCHKEY_KMS_TIMEOUT=1s", "LATCHKEY_MESH_TIMEOUT=1s",
		"LATCHKEY_MESSAGES_ACK_WAIT=2s", "LATCHKEY_REFRESH_LEASE=4s", "LATCHKEY_WORKER_CLOCK_SKEW=0s", "LATCHKEY_TOKENS_TIMEOUT=5s",
		"LATCHKEY_DATA_KEYS_PER_USER=true", "LATCHKEY_DATA_KEYS_CACHE_AGE=2s", "LATCHKEY_DATA_KEYS_OUTAGE=0s", "LATCHKEY_TOKENS_CACHE_AGE=0s",
	}
	w.worker = w.harness.worker(w.settings...)
	w.atStart = w.take()
	return w
}

// live is all that a user goes through.
func (w *walk) live(t *testing.T) {
	t.Helper()
	h := w.in(t)
	w.lives++
	user := fmt.Sprint("walk-", 100+w.lives)
	h.connectAged(user, due, spec("coinbase"), user)
	h.event(events.TokenStored, user)
	h.event(events.TokenRefreshed, user)
	require.Len(t, h.given(events.TokenRequest{UserID: user}).AccessTokens, 1)
	h.given(h.refusing(events.TokenRequest{UserID: user})) // a refresh, waited for
	letters := len(h.deadLetters(0))
	h.publish(h.subjects.Connected(), "junk")
	h.publish(h.subjects.Recovery("x"), "junk")
	h.deadLetters(letters + 2)
	h.disconnect(user, "coinbase", user)
	h.event(events.TokenRevoked, user)
	h.eventually(func() bool { return len(h.grants(user)) == 0 }, "the grant is not erased")
}

// Every wait ends: whichever answer of NATS, of the database, of KMS or of Mesh
// never comes, at each place where one is waited for in turn, the worker goes on,
// and afterwards everything works.
func TestEveryWaitEnds(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"NATS answer", "NATS message", "MongoDB", "KMS", "Mesh"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			w := newWalk(t)
			w.live(t)
			w.live(t)
			kinds := slices.DeleteFunc(w.take(), func(kind string) bool { return !strings.HasPrefix(kind, engine) })
			require.NotEmpty(t, kinds)
			for _, kind := range kinds {
				t.Run(kind, func(t *testing.T) {
					for pass := range 2 {
						kept := w.arm(kind, pass)
						w.live(t)
						select {
						case <-kept:
						default:
							w.disarm() // rarer than a life
							return
						}
					}
				})
			}
			w.live(t) // each life shows that everything works after the one before
		})
	}
}

// A start ends too: the worker works, or says what is wrong, and the next start
// finds nothing in its way.
func TestEveryWaitOfAStartEnds(t *testing.T) {
	t.Parallel()
	w := newWalk(t)
	w.worker.stop()
	require.Greater(t, len(w.atStart), 20)
	for _, kind := range w.atStart {
		if strings.Contains(kind, "createIndexes") {
			continue // an index takes as long as it takes
		}
		t.Run(kind, func(t *testing.T) {
			w.arm(kind, 0)
			running, err := w.in(t).tryWorker(w.settings...)
			w.disarm()
			if err == nil {
				running.stop()
			}
		})
	}
	w.harness.worker(w.settings...)
	w.live(t)
}
