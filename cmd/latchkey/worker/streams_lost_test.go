package worker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

// Whatever stream or consumer is removed while workers run is there again within
// a few passes of reconciliation, and everything works.
func TestWhatIsRemovedFromNATSComesBack(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"coinbase": {AccessLifetime: life, RefreshLifetime: 24 * life}})
	w := h.worker("LATCHKEY_NATS_PARTITIONS=2", "LATCHKEY_MESSAGES_ACK_WAIT=2s")
	h.subjects.Partitions = 2
	all := h.assets()
	require.GreaterOrEqual(t, len(all), 7+7)

	probes := 0
	works := func() {
		t.Helper()
		probes++
		user := fmt.Sprint("u", probes)
		h.eventually(func() bool { // a stream may be away still
			_, err := h.js.Publish(h.ctx, h.subjects.Disconnected(), []byte(`{"userId":"nobody","everything":true}`))
			return err == nil
		}, "nothing can be published")
		h.connectAged(user, due, spec("coinbase"), user)
		h.event(events.TokenStored, user)
		h.event(events.TokenRefreshed, user)
		require.Len(t, h.get(events.TokenRequest{UserID: user}).AccessTokens, 1)
		letters := len(h.deadLetters(0))
		h.publish(h.subjects.Connected(), "junk")
		h.deadLetters(letters + 1)
		h.publish(h.subjects.Recovery("x"), "junk")
		h.deadLetters(letters + 2)
		h.eventually(func() bool {
			stored := map[string]uint64{} // in all partitions together
			for n, p := range h.subjects.LifecyclePartitions() {
				for kind, name := range map[string]string{"events": p.Stream, "audit": h.subjects.AuditPartitions()[n].Stream} {
					stream, err := h.js.Stream(h.ctx, name)
					if err != nil {
						return false
					}
					stored[kind] += stream.CachedInfo().State.Msgs
				}
			}
			return stored["events"] > 0 && stored["audit"] > 0
		}, "events or the audit log are not kept")
	}
	works()
	for _, a := range all {
		t.Run(a, func(t *testing.T) {
			h := h.in(t)
			stream, consumer, isConsumer := strings.Cut(a, " ")
			before := w.counter("latchkey_reconciliations_total", "outcome", "ok")
			if isConsumer {
				require.NoError(t, h.js.DeleteConsumer(h.ctx, stream, consumer))
			} else {
				require.NoError(t, h.js.DeleteStream(h.ctx, stream))
			}
			h.eventually(func() bool {
				back := slices.Equal(all, h.assets())
				return back || w.counter("latchkey_reconciliations_total", "outcome", "ok") > before+20
			}, "neither is it back, nor does reconciliation go on")
			require.Equal(t, all, h.assets(), "twenty passes have not brought it back")
			works()
		})
	}
}

// assets lists all streams, and all consumers after the names of their streams.
func (h *harness) assets() []string {
	h.t.Helper()
	var all []string
	names := h.js.StreamNames(h.ctx)
	for name := range names.Name() {
		all = append(all, name)
		stream, err := h.js.Stream(h.ctx, name)
		if err != nil {
			continue // it is being made
		}
		consumers := stream.ConsumerNames(h.ctx)
		for consumer := range consumers.Name() {
			if strings.HasPrefix(consumer, "latchkey-") {
				all = append(all, name+" "+consumer)
			}
		}
	}
	slices.Sort(all)
	return all
}
