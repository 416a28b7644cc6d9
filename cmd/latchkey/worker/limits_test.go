package worker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// Two workers together refresh as fast as the limits say, and each takes a part. One
// that stops leaves its share to the other.
func TestLimitsHoldForAllWorkersTogether(t *testing.T) {
	t.Parallel()
	const users, perSecond, burst = 40, 8, 2
	h := start(t, nil)
	limits := []string{fmt.Sprint("LATCHKEY_LIMITS_RATE=", perSecond), fmt.Sprint("LATCHKEY_LIMITS_BURST=", burst)}
	both := []*running{h.worker(limits...), h.worker(limits...)}
	counts := func(w *running, n float64) func() bool {
		return func() bool { return w.metric("latchkey_limits_workers") == n }
	}
	for _, w := range both {
		h.eventually(counts(w, 2), "they count each other")
	}
	began := time.Now()
	for i := range users {
		h.connectAged(fmt.Sprint("u", i), due, spec("coinbase"), fmt.Sprint("a", i))
	}
	for i := range users {
		h.event(events.TokenRefreshed, fmt.Sprint("u", i))
	}
	require.GreaterOrEqual(t, time.Since(began), (users-burst-2)*time.Second/perSecond, "more than the rate")
	for _, w := range both {
		require.Positive(t, w.metric("latchkey_refreshes_total"))
	}
	both[0].stop()
	h.eventually(counts(both[1], 1), "the share of the one that stopped")
	h.connectAged("one more", due, spec("coinbase"), "one more")
	h.event(events.TokenRefreshed, "one more")
}
