package worker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
)

// Two workers keep many grants alive whose tokens live for a minute or two, and
// the simulator's ledger tells what they did.
func TestManyGrantsAreKeptAliveByTwoWorkers(t *testing.T) {
	grants, lifetime := 2000, 2*time.Minute
	postgres := ""
	if pg := enginestest.IfPostgres(t); pg != nil {
		postgres = pg.URL()
	}
	// On SQLite the embedded database reads a whole collection to find a user.
	if testing.Short() || enginestest.RaceDetector || postgres == "" {
		grants, lifetime = 300, time.Minute
	}
	institution := meshsim.Institution{AccessLifetime: lifetime, RefreshLifetime: life}
	h := startWith(t, stack.Options{
		PostgresURL:  postgres,
		Institutions: map[string]meshsim.Institution{"b0": institution, "b1": institution, "b2": institution, "b3": institution},
	})
	settings := []string{
		"LATCHKEY_REFRESH_ACCESS_TOKEN_SHARE=0.45",
		"LATCHKEY_CONNECT_CONCURRENCY=8", "LATCHKEY_REFRESH_CONCURRENCY=8",
		"LATCHKEY_RECONCILE_INTERVAL=10s", "LATCHKEY_RECONCILE_SLACK=10s",
		"LATCHKEY_LIMITS_RATE=1000", "LATCHKEY_LIMITS_BROKER_RATE=1000",
	}
	workers := []*running{h.worker(settings...), h.worker(settings...)}
	for n := range grants {
		user := fmt.Sprint("user-", n)
		h.publishConnected(user, h.issue(fmt.Sprint("b", n%4), user), time.Time{})
	}
	require.Eventually(t, func() bool {
		for _, c := range h.stack.Mesh.Ledger().Chains {
			if len(c.Refresh) == 1 {
				return false
			}
		}
		return true
	}, 3*lifetime, time.Second, "not all grants are refreshed")
	for _, w := range workers {
		w.stop()
		require.Greater(t, w.counter("latchkey_messages_total", "message", events.RefreshDueName), float64(grants/4), "both workers work")
	}
	require.NoError(t, h.stack.Mesh.WaitIdle(h.ctx))
	ledger := h.stack.Mesh.Ledger()
	require.Len(t, ledger.Chains, grants)
	require.Empty(t, ledger.ReplacedPresented())
	require.Empty(t, ledger.DoubleSpends())
	told := h.refreshedByUser()
	late := 0
	for _, c := range ledger.Chains {
		require.True(t, c.Alive(), c.DeadBecause)
		require.Equal(t, len(c.Refresh)-1, told[c.Accounts[0].ID], "events and ledger disagree about %s", c.Accounts[0].ID)
		for i := 1; i < len(c.Access); i++ {
			if c.Access[i].IssuedAt.After(c.Access[i-1].ExpiresAt) {
				late++
			}
		}
	}
	// How many depends on how fast the machine is.
	t.Logf("%d of %d tokens ended before their successor came", late, grants)
}

// refreshedByUser counts the token.refreshed events in the stream.
func (h *harness) refreshedByUser() map[string]int {
	h.t.Helper()
	consumer, err := h.js.OrderedConsumer(h.ctx, h.subjects.LifecycleStream(), jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{h.subjects.LifecycleAll(events.TokenRefreshed)},
	})
	require.NoError(h.t, err)
	info, err := consumer.Info(h.ctx)
	require.NoError(h.t, err)
	out := map[string]int{}
	batch, err := consumer.Fetch(int(info.NumPending), jetstream.FetchMaxWait(patience))
	require.NoError(h.t, err)
	for msg := range batch.Messages() {
		e, err := events.DecodeLifecycle(msg.Data())
		require.NoError(h.t, err)
		out[e.Data.UserID]++
	}
	require.NoError(h.t, batch.Error())
	return out
}
