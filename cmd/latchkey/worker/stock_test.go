package worker_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// TestAWorkerTellsItsBuildAndTheStock: from the metrics alone one sees what runs, and how
// many grants there are.
func TestAWorkerTellsItsBuildAndTheStock(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker()
	h.connectAged("alice", fresh, spec("coinbase"), "a")
	h.event(events.TokenStored, "alice")
	require.Equal(t, []string{runtime.Version()}, w.values("latchkey_build_info", "goversion"))
	next := h.worker() // which counts as it starts
	h.eventually(func() bool { return next.metric("latchkey_grants") == 1 }, "the grant is counted")
	require.Equal(t, []string{"active"}, next.values("latchkey_grants", "state"))
}
