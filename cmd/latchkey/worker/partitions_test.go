package worker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/streams"
)

// The number of partitions changes on a living installation, up with old and
// new workers side by side and down by a restart: no grant is lost on the way,
// and none is refreshed twice.
func TestTheNumberOfPartitionsChanges(t *testing.T) {
	const users = 40
	h := start(t, map[string]meshsim.Institution{"coinbase": {AccessLifetime: 2 * time.Second, RefreshLifetime: time.Hour}})
	partitions := func(n int) string { return fmt.Sprint("LATCHKEY_NATS_PARTITIONS=", n) }
	user := func(n int) string { return fmt.Sprint("user-", n) }
	refreshed := func() {
		t.Helper()
		var seen [users]int
		for n := range users {
			seen[n] = len(h.eventsOf(events.TokenRefreshed, user(n)))
		}
		for n := range users {
			h.nth(events.TokenRefreshed, user(n), seen[n]+2) // the first may have been under way
		}
	}
	// using waits until the schedules lie in so many streams.
	using := func(streams int) {
		t.Helper()
		h.eventually(func() bool { return scheduledIn(h, users, user) == streams }, fmt.Sprint("schedules don't lie in ", streams, " streams"))
	}

	first := h.worker()
	kept, err := h.js.CreateConsumer(h.ctx, h.subjects.LifecycleStream(), jetstream.ConsumerConfig{Durable: "kept", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	for n := range users {
		h.connect(user(n), meshsim.ConnectSpec{BrokerType: "coinbase"})
	}
	refreshed()
	using(1)
	second := h.worker(partitions(4)) // both at once
	refreshed()
	first.stop()
	refreshed()
	using(4)
	second.stop()

	third := h.worker(partitions(2))
	refreshed()
	using(2)
	third.stop()

	// What was left in the streams that nobody read: out of date, and spends
	// nothing.
	h.subjects.Partitions = 4
	state := func(n int) jetstream.StreamState {
		stream, err := h.js.Stream(h.ctx, h.subjects.RefreshPartitions()[n].Stream)
		require.NoError(t, err)
		return stream.CachedInfo().State
	}
	left := map[int]jetstream.StreamState{2: state(2), 3: state(3)}
	require.NotZero(t, left[2].Msgs+left[3].Msgs)
	fourth := h.worker(partitions(4))
	h.eventually(func() bool { return state(2).FirstSeq > left[2].LastSeq && state(3).FirstSeq > left[3].LastSeq }, "what was left is not read")
	fourth.stop()

	require.NoError(t, h.stack.Mesh.WaitIdle(h.ctx))
	ledger := h.stack.Mesh.Ledger()
	require.Empty(t, ledger.ReplacedPresented())
	require.Empty(t, ledger.DoubleSpends())
	require.Len(t, ledger.Chains, users)
	spent := 0
	for _, c := range ledger.Chains {
		require.True(t, c.Alive(), c.DeadBecause)
		spent += len(c.Refresh) - 1
	}
	told := 0
	for _, n := range h.refreshedByUser() {
		told += n
	}
	require.Equal(t, spent, told, "what the other number's workers could not publish was published later")
	held, err := streams.Lifecycle(h.ctx, h.js, h.subjects)
	require.NoError(t, err)
	require.Len(t, held, 4)
	info, err := kept.Info(h.ctx)
	require.NoError(t, err)
	require.Equal(t, held[0].CachedInfo().State.Msgs, info.NumPending, "a subscriber keeps its place")
	require.Empty(t, h.eventsOf(events.TokenExpired, user(0)))
}

// scheduledIn tells in how many streams the schedules of users lie.
func scheduledIn(h *harness, users int, user func(int) string) int {
	h.t.Helper()
	in := map[string]bool{}
	for n := range users {
		for _, g := range h.grants(user(n)) {
			in[g.Due.Stream] = true
		}
	}
	delete(in, "") // being refreshed
	return len(in)
}
