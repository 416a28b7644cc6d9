package worker_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// TestAStoppedProcessPresentsNothing stops a worker process between its lease and
// its call, until another worker has taken the lease over and refreshed.
func TestAStoppedProcessPresentsNothing(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	short := []string{ // the lease must outlast a call and a save
		"LATCHKEY_MESH_TIMEOUT=2s", "LATCHKEY_MONGODB_TIMEOUT=3s", "LATCHKEY_KMS_TIMEOUT=2s", "LATCHKEY_WORKER_CLOCK_SKEW=1s", "LATCHKEY_REFRESH_LEASE=10s",
	}
	p := h.process(buildSandbox(t), "--stop-before-call", short...)
	h.connectAged("user", due, spec("broker"), "account")
	h.eventually(func() bool {
		all := h.grants("user")
		return len(all) == 1 && all[0].Lease != nil
	}, "no lease is taken")

	h.worker(short...)
	h.event(events.TokenRefreshed, "user")
	won := h.grants("user")[0]
	require.Equal(t, int64(2), won.Version)
	require.NotContains(t, p.output(), "a refresh was delayed")

	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	h.eventually(func() bool {
		return strings.Contains(p.output(), "a refresh was delayed until its lease had almost ended")
	}, "the process does not go on")
	require.Len(t, h.requests("account"), 1)
	require.Empty(t, h.stack.Mesh.Ledger().DoubleSpends())
	require.Equal(t, won.Version, h.grants("user")[0].Version)
}
