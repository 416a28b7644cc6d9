package worker_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// A connect whose events neither NATS nor the database would take is told when
// its message comes again, once.
func TestAConnectThatIsStoredAndUntoldIsTold(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	proxy := h.stack.MongoDB.Proxy()
	stream, err := h.js.Stream(h.ctx, h.subjects.LifecycleStream())
	require.NoError(t, err)
	var refused atomic.Int64
	proxy.FailWrites(91, func(command, collection string) bool {
		return command == "update" && collection == "grants" && refused.Add(1) > 0
	})
	require.NoError(t, h.js.DeleteStream(h.ctx, h.subjects.LifecycleStream()))

	h.publishConnected("u", h.issue("coinbase", "a"), time.Now())
	h.eventually(func() bool { return refused.Load() > 0 }, "nothing was owed")
	g := h.grants("u")[0]
	require.Nil(t, g.Outbox)
	require.NotEmpty(t, g.Due.Stream)

	proxy.FailWrites(0, nil)
	_, err = h.js.CreateStream(h.ctx, stream.CachedInfo().Config)
	require.NoError(t, err)
	stored := h.event(events.TokenStored, "u")
	require.Equal(t, g.ID, stored.Data.GrantID)
	require.EqualValues(t, 1, stored.Data.Version)
	h.eventually(func() bool { return h.scheduled(g.ID) }, "no schedule")
	h.handled()
	kept, err := h.js.Stream(h.ctx, h.subjects.LifecycleStream())
	require.NoError(t, err)
	require.EqualValues(t, 1, kept.CachedInfo().State.Msgs)
}
