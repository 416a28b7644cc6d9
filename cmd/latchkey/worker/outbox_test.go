package worker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

// NATS takes no events, the worker that made the changes is gone, and NATS has
// forgotten the messages that led to them: what is stored is announced all the same.
func TestWhatIsStoredIsAnnouncedThoughItsMessageIsLost(t *testing.T) {
	t.Parallel()
	const users = 12
	h := start(t, map[string]meshsim.Institution{"coinbase": {AccessLifetime: 3 * time.Second, RefreshLifetime: time.Hour}})
	w := h.worker("LATCHKEY_RECONCILE_INTERVAL=1h")
	lifecycle, err := h.js.Stream(h.ctx, h.subjects.LifecycleStream())
	require.NoError(t, err)
	refusing := lifecycle.CachedInfo().Config
	refusing.MaxMsgSize = 1
	_, err = h.js.UpdateStream(h.ctx, refusing)
	require.NoError(t, err)
	for i := range users {
		h.publishConnected(fmt.Sprint("u", i), h.issue("coinbase", fmt.Sprint("a", i)), time.Now())
	}
	h.eventually(func() bool {
		for i := range users {
			if all := h.grants(fmt.Sprint("u", i)); len(all) != 1 || all[0].Version < 2 {
				return false
			}
		}
		return true
	}, "each is stored, and refreshed")
	w.stop()
	for _, name := range []string{h.subjects.IntegrationStream(), h.subjects.RefreshStream()} {
		s, err := h.js.Stream(h.ctx, name)
		require.NoError(t, err)
		require.NoError(t, s.Purge(h.ctx))
	}
	h.mu.Lock()
	h.seen, h.ids = nil, map[string]bool{} // subscribers without a stream heard them, which is not enough
	h.mu.Unlock()
	_, err = h.js.UpdateStream(h.ctx, lifecycle.CachedInfo().Config)
	require.NoError(t, err)
	h.worker()
	for i := range users {
		h.event(events.TokenStored, fmt.Sprint("u", i))
		h.event(events.TokenRefreshed, fmt.Sprint("u", i))
	}
}
