package worker_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/direct"
	"github.com/latchkey/latchkey/store/streams"
)

// Two workers keep many grants alive, and the simulator's ledger tells what they did. The
// tokens live as long as suits this machine's pace, and the waits end only when nothing
// moves any more: how fast it is decides how long this takes, and nothing else.
func TestManyGrantsAreKeptAliveByTwoWorkers(t *testing.T) {
	grants := 2000
	postgres := ""
	if pg := enginestest.IfPostgres(t); pg != nil {
		postgres = pg.URL()
	}
	// On SQLite the embedded database reads a whole collection to find a user.
	if testing.Short() || enginestest.RaceDetector || postgres == "" {
		grants = 300
	}
	h := startWith(t, stack.Options{PostgresURL: postgres})
	var cancel context.CancelFunc
	h.ctx, cancel = context.WithTimeout(context.WithoutCancel(h.ctx), 15*time.Minute)
	t.Cleanup(cancel)
	settings := []string{
		"LATCHKEY_REFRESH_ACCESS_TOKEN_SHARE=0.45",
		"LATCHKEY_CONNECT_CONCURRENCY=8", "LATCHKEY_REFRESH_CONCURRENCY=8",
		"LATCHKEY_LIMITS_RATE=1000", "LATCHKEY_LIMITS_BROKER_RATE=1000",
		// The embedded database reads whole collections for a pass. On a slow machine calls
		// that are given up and made again would be all that it does.
		"LATCHKEY_RECONCILE_INTERVAL=1m", "LATCHKEY_RECONCILE_SLACK=1m",
		"LATCHKEY_MONGODB_TIMEOUT=2m", "LATCHKEY_REFRESH_LEASE=10m", "LATCHKEY_WORKER_GRACE=10m",
	}
	workers := []*running{h.worker(settings...), h.worker(settings...)}
	connect := func(name string, n int, access time.Duration) {
		institution := meshsim.Institution{AccessLifetime: access, RefreshLifetime: life}
		for i := range n {
			user := fmt.Sprint(name, "-", i)
			h.publishConnected(user, h.issueSpec(meshsim.ConnectSpec{BrokerType: fmt.Sprint("b", i%4), Institution: &institution}, user), time.Time{})
		}
	}
	heard := func(kind string) (n int) {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, e := range h.seen {
			if e.Kind == kind {
				n++
			}
		}
		return n
	}
	refreshed := func() (n int) {
		for _, c := range h.stack.Mesh.Ledger().Chains {
			if len(c.Refresh) > 1 {
				n++
			}
		}
		return n
	}

	// The pace is that of connects whose tokens nobody refreshes here. A refresh costs
	// about as much, and all grants need one in less than half of a lifetime.
	const paced = 100
	began := time.Now()
	connect("paced", paced, life)
	h.progress(func() int { return heard(events.TokenStored) }, paced, "connects")
	pace := time.Since(began) / time.Duration(paced)
	lifetime := min(max(4*pace*time.Duration(grants), 20*time.Second), life/6)
	t.Logf("a connect takes %s, so access tokens live %s", pace, lifetime)

	connect("user", grants, lifetime)
	h.progress(refreshed, grants, "grants that were refreshed")
	for _, w := range workers {
		w.stop()
		require.Greater(t, w.counter("latchkey_messages_total", "message", events.RefreshDueName), float64(grants/4), "both workers work")
	}
	require.NoError(t, h.stack.Mesh.WaitIdle(h.ctx))
	ledger := h.stack.Mesh.Ledger()
	require.Len(t, ledger.Chains, paced+grants)
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
	require.Zero(t, heard(events.TokenExpired))
	// How many depends on how fast the machine is.
	t.Logf("%d of %d tokens ended before their successor came", late, grants)
}

// stall is how long nothing may move: more than half of the longest lifetime.
const stall = 6 * time.Minute

// progress waits until count has reached a number, and fails when it has not grown for a while.
func (h *harness) progress(count func() int, want int, what string) {
	h.t.Helper()
	best, since := 0, time.Now()
	for {
		n := count()
		if n >= want {
			return
		}
		if n > best {
			best, since = n, time.Now()
		}
		require.Less(h.t, time.Since(since), stall, "%s: %d of %d, and no more come", what, n, want)
		time.Sleep(500 * time.Millisecond)
	}
}

// refreshedByUser counts the token.refreshed events in the stream.
func (h *harness) refreshedByUser() map[string]int {
	h.t.Helper()
	all, err := streams.Lifecycle(h.ctx, h.js, h.subjects)
	require.NoError(h.t, err)
	out, seen := map[string]int{}, map[string]bool{}
	for msg, err := range direct.ReadAll(h.ctx, h.js, all, func(jetstream.Stream) direct.Reading {
		return direct.Reading{Subject: h.subjects.LifecycleAll(events.TokenRefreshed)}
	}) {
		require.NoError(h.t, err)
		e, err := events.DecodeLifecycle(msg.Data)
		require.NoError(h.t, err)
		if !seen[e.ID] { // with another number of partitions it may be stored again
			seen[e.ID] = true
			out[e.Data.UserID]++
		}
	}
	return out
}
