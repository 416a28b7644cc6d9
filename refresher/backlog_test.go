package refresher_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/clocktest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/streams"
)

// However long a backlog lasts and however many workers look at it, its messages
// are handled once, and nothing is added to it; and a message that was really lost
// in its midst is made again once the queue has got past where it was.
func TestABacklogIsNotMadeLonger(t *testing.T) {
	t.Parallel()
	t.Run("of messages that came when they were due", func(t *testing.T) { backlogIsNotMadeLonger(t, 0) })
	// As after NATS was away, or once they were put off.
	t.Run("of messages that came late", func(t *testing.T) { backlogIsNotMadeLonger(t, hour) })
}

func backlogIsNotMadeLonger(t *testing.T, late time.Duration) {
	const backlog, lost = 24, 3
	r := newRig(t)
	r.Clock = clocktest.NewRunning(0)
	p := r.Subjects.RefreshPartitions()[0]
	consumer, err := r.Streams.Consumer(t.Context(), p.Stream, p.Due)
	require.NoError(t, err)
	_, err = r.Streams.Consumer(t.Context(), p.Stream, p.Urgent)
	require.NoError(t, err)
	var workers []*worker
	for _, id := range []string{"a", "b", "c"} {
		w := r.Worker(id)
		w.Topology.DueQueuesFunc = r.Streams.DueQueues
		w.Reconciler.Settings().Slack = 5 * time.Second
		workers = append(workers, w)
	}
	a := workers[0]
	var all []*store.Grant
	for n := range backlog + lost {
		g := r.Connect(a, meshsim.ConnectSpec{}, func(g *store.Grant) {
			// Of those that came late at once the order says nothing.
			g.Due.At = g.Due.At.Add(-late - late*time.Duration(n*7%backlog)/backlog)
		})
		all = append(all, g)
		if n%9 != 4 {
			require.NoError(t, a.Dispatcher.Postpone(t.Context(), due(g), g.Due.At.Add(late)))
		}
	}
	r.Eventually(func() bool {
		info, err := consumer.Info(t.Context())
		return err == nil && info.NumPending == backlog
	}, "all that is not lost has come due")

	last := r.Clock.Now()
	r.Eventually(func() bool { return r.Clock.Now().After(last.Add(10 * time.Second)) }, "all of it is overdue")
	handled := map[string]int{}
	handle := func(wait time.Duration) bool {
		batch, err := consumer.Fetch(1, jetstream.FetchMaxWait(wait))
		require.NoError(t, err)
		for msg := range batch.Messages() {
			m, err := events.DecodeRefreshDue(msg.Data())
			require.NoError(t, err)
			require.NoError(t, a.HandleDue(context.WithoutCancel(t.Context()), m))
			require.NoError(t, msg.DoubleAck(t.Context()))
			handled[m.GrantID]++
			return true
		}
		return false
	}
	for n := range backlog {
		if n%4 == 0 {
			for _, w := range workers {
				require.NoError(t, w.Reconciler.Pass(t.Context()))
			}
			for n, g := range all {
				require.True(t, n%9 == 4 || r.Get(a, g.ID).Due.Reschedules == 0, "it only waits")
			}
		}
		require.True(t, handle(patience))
	}
	require.Len(t, handled, backlog, "each once, and no other")
	info, err := consumer.Info(t.Context())
	require.NoError(t, err)
	require.Zero(t, info.NumPending+uint64(info.NumAckPending))

	for _, w := range workers {
		require.NoError(t, w.Reconciler.Pass(t.Context()))
	}
	for range lost {
		require.True(t, handle(patience), "what was lost is made again")
	}
	require.False(t, handle(time.Second), "by one of the workers")
	for _, g := range all {
		require.Equal(t, 1, handled[g.ID])
		require.Equal(t, int64(2), r.Get(a, g.ID).Version)
	}
}

// What the streams tell of a queue is what lies in them.
func TestWhereAQueueStands(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	p := r.Subjects.RefreshPartitions()[0]
	stand := func() streams.DueQueue {
		t.Helper()
		all, err := r.Streams.DueQueues(t.Context())
		require.NoError(t, err)
		require.Len(t, all, 1)
		require.False(t, all[0].Now.IsZero())
		return all[0]
	}
	var consumers []jetstream.Consumer
	for _, subject := range []string{p.Due, p.Urgent} {
		c, err := r.Streams.Consumer(t.Context(), p.Stream, subject)
		require.NoError(t, err)
		consumers = append(consumers, c)
	}
	empty := stand()
	require.Zero(t, empty.Undelivered)
	require.Zero(t, empty.Unhandled)
	for n := range 3 {
		m := due(r.Connect(w, meshsim.ConnectSpec{}))
		m.Unknown = n == 1
		_, err := r.JS.PublishMsg(t.Context(), dueMsg(t, r, m))
		require.NoError(t, err)
	}
	stored := r.Messages(p.Stream, ">")
	require.Len(t, stored, 3)
	got := stand()
	require.Equal(t, stored[0].Time, got.Undelivered)
	require.Equal(t, stored[0].Time, got.Unhandled)

	take := func(c jetstream.Consumer) jetstream.Msg {
		msg, err := c.Next(jetstream.FetchMaxWait(patience))
		require.NoError(t, err)
		return msg
	}
	first := take(consumers[0])
	got = stand()
	require.Equal(t, stored[1].Time, got.Undelivered, "in the other lane")
	require.Equal(t, stored[0].Time, got.Unhandled)
	second := take(consumers[1])
	require.Equal(t, stored[2].Time, stand().Undelivered)
	require.NoError(t, first.DoubleAck(t.Context()))
	require.Equal(t, stored[1].Time, stand().Unhandled)
	require.NoError(t, second.DoubleAck(t.Context()))
	third := take(consumers[0])
	got = stand()
	require.Zero(t, got.Undelivered)
	require.Equal(t, stored[2].Time, got.Unhandled)
	require.NoError(t, third.DoubleAck(t.Context()))
	require.Zero(t, stand().Unhandled)
}

// dueMsg is a due message as NATS makes it of a schedule.
func dueMsg(t *testing.T, r *rig, m events.RefreshDue) *nats.Msg {
	t.Helper()
	partition := r.Subjects.RefreshPartition(m.GrantID)
	msg := nats.NewMsg(partition.Due)
	if m.Unknown {
		msg.Subject = partition.Urgent
	}
	var err error
	msg.Data, err = json.Marshal(m)
	require.NoError(t, err)
	return msg
}
