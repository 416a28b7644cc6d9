package refresher_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/streams"
)

// slack is when a grant counts as overdue, horizon how far schedules reach.
var (
	slack   = config.Default().Reconcile.Slack
	horizon = config.Default().Refresh.Horizon
)

func TestPassSendsWhatACrashLeft(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.changed(w, horizon+day) // so that the outbox is all that there is to do
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.Empty(t, r.LifecycleEvents("user"), "whoever changed it has some time to send it")
	r.Clock.Advance(slack + time.Second)
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.Equal(t, []string{"token.stored: ", "token.refreshed: "}, r.LifecycleEvents("user"))
	require.Nil(t, r.Get(w, g.ID).Outbox)
}

func TestPassSchedulesWhatIsDueWithinTheHorizon(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	in := func(d time.Duration) func(*store.Grant) {
		return func(g *store.Grant) {
			g.Access.ExpiresAt = nil // nothing has to be announced
			g.Due = &store.Due{At: r.Clock.Now().Add(d), Action: store.Refresh}
		}
	}
	near, far := r.Connect(w, meshsim.ConnectSpec{}, in(hour)), r.Connect(w, meshsim.ConnectSpec{}, in(horizon+hour))
	never := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Due = nil })
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.NotNil(t, r.schedule(near.ID))
	require.Nil(t, r.schedule(far.ID))
	require.Nil(t, r.schedule(never.ID))
	require.Equal(t, w.Dispatcher.Stream(near.ID), r.Get(w, near.ID).Due.Stream)

	first := r.schedule(near.ID).Sequence
	r.Clock.Advance(2 * time.Minute)
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.Equal(t, first, r.schedule(near.ID).Sequence, "once is enough")

	r.Clock.Advance(hour)
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.NotNil(t, r.schedule(far.ID), "its time has come near")
}

func TestPassWorksInPages(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	w.Reconciler.Settings().Batch = 2
	var ids []string
	for i := range 7 {
		g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
			g.Due = &store.Due{At: r.Clock.Now().Add(time.Duration(i+1) * hour), Action: store.Refresh}
		})
		ids = append(ids, g.ID)
	}
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	for _, id := range ids {
		require.NotNil(t, r.schedule(id))
	}
}

func TestPassMakesALostMessageGoodEverMoreRarely(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{})
	made := func() int { return len(r.dueMessages(g.ID)) }
	pass := func(want int) {
		t.Helper()
		require.NoError(t, w.Reconciler.Pass(t.Context()))
		// Overdue schedules fire at once, but not within the call.
		r.Eventually(func() bool { return made() >= want && r.schedule(g.ID) == nil }, fmt.Sprint("message number ", want))
		require.Equal(t, want, made())
	}
	pass(0)
	r.Clock.Advance(slack + time.Millisecond)
	pass(1)
	require.Equal(t, due(g).DueAt, r.dueMessages(g.ID)[0].DueAt.UTC())
	for n, gap := 1, 2*slack; n < 4; n, gap = n+1, 2*gap {
		r.Clock.Advance(gap - time.Millisecond)
		pass(n)
		r.Clock.Advance(time.Millisecond)
		pass(n + 1)
		require.Equal(t, n+1, r.Get(w, g.ID).Due.Reschedules)
	}
}

func TestPassLeavesAloneWhatIsOnlyLate(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	leased := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Lease = &store.Lease{Owner: "b", Until: r.Clock.Now().Add(hour)} })
	queued := r.Connect(w, meshsim.ConnectSpec{})
	r.Clock.Advance(2 * slack)
	w.Queue = streams.DueQueue{Now: r.Clock.Now(), Unhandled: queued.Due.At, Undelivered: queued.Due.At}
	pokes := func(want int) {
		t.Helper()
		require.NoError(t, w.Reconciler.Pass(t.Context()))
		require.Zero(t, r.Get(w, leased.ID).Due.Reschedules)
		require.Equal(t, want, r.Get(w, queued.ID).Due.Reschedules)
	}
	pokes(0)
	r.Clock.Advance(hour / 2) // however long the queue takes to get there
	pokes(0)
	w.Queue.Undelivered = time.Time{}
	w.Queue.Unhandled = r.Clock.Now().Add(-slack)
	pokes(1) // it has got past: the message was lost

	other := r.Connect(w, meshsim.ConnectSpec{})
	r.Clock.Advance(2 * slack)
	w.Queue.Now, w.Queue.Unhandled = r.Clock.Now(), other.Due.At
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.Zero(t, r.Get(w, other.ID).Due.Reschedules, "a worker may be at it")
	r.Clock.Advance(8 * slack)
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.Equal(t, 1, r.Get(w, other.ID).Due.Reschedules, "what is stuck with a worker is no excuse for ever")
}

// Where a queue can't be looked at nothing of it is taken for lost; what else there
// is to do is done.
func TestAQueueThatCannotBeSeenHoldsEverything(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a", served)
	g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Access = nil })
	r.Clock.Advance(hour)
	away := errors.New("away")
	for _, queues := range [][]streams.DueQueue{nil, {{Unreadable: true}}} {
		w.Topology.DueQueuesFunc = func(context.Context) ([]streams.DueQueue, error) { return queues, away }
		require.ErrorIs(t, w.Reconciler.Pass(t.Context()), away)
		require.Zero(t, r.Get(w, g.ID).Due.Reschedules)
		require.NotEmpty(t, r.Get(w, g.ID).Warned, "that it has no token is announced all the same")
	}
}

func TestPassLeavesAloneWhatIsPutOff(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	served := func(g *store.Grant) { g.Access.ExpiresAt = nil }
	putOff, changed, spoilt := r.Connect(w, meshsim.ConnectSpec{}, served), r.Connect(w, meshsim.ConnectSpec{}, served), r.Connect(w, meshsim.ConnectSpec{}, served)
	back := r.Clock.Now().Add(hour)
	require.NoError(t, w.Dispatcher.Postpone(t.Context(), due(putOff), back))
	old := due(changed)
	old.DueAt = old.DueAt.Add(-time.Second) // of another action than is due now
	require.NoError(t, w.Dispatcher.Postpone(t.Context(), old, back))
	require.NoError(t, w.Dispatcher.Postpone(t.Context(), due(spoilt), back))
	kept := r.schedule(spoilt.ID)
	_, err := r.JS.PublishMsg(t.Context(), &nats.Msg{Subject: kept.Subject, Header: kept.Header, Data: []byte("no schedule")})
	require.NoError(t, err)
	r.Clock.Advance(hour - time.Second)
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.Zero(t, r.Get(w, putOff.ID).Due.Reschedules)
	require.NotNil(t, r.schedule(putOff.ID))
	require.Equal(t, 1, r.Get(w, changed.ID).Due.Reschedules)
	require.Equal(t, 1, r.Get(w, spoilt.ID).Due.Reschedules)

	r.Clock.Advance(2 * time.Second) // and now it should have come
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.Equal(t, 1, r.Get(w, putOff.ID).Due.Reschedules)
}

func TestAPageOfStuckGrantsDoesNotHideTheRest(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	w.Reconciler.Settings().Batch = 1
	for i := range 25 { // more than one pass walks through
		r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
			g.Due.At = g.Due.At.Add(time.Duration(i-100) * time.Second)
			g.Lease = &store.Lease{Owner: "b", Until: r.Clock.Now().Add(hour)}
		})
	}
	last := r.Connect(w, meshsim.ConnectSpec{})
	r.Clock.Advance(2 * slack)
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.Equal(t, 1, r.Get(w, last.ID).Due.Reschedules)
}

func TestWhatChangedSinceItWasListedIsLeftAlone(t *testing.T) {
	r := newRig(t)
	var second *store.Grant
	listed := make(chan struct{}, 2)
	w := r.Worker("a", func(d *refresher.Options) {
		// Another worker refreshes the second grant while the first is dealt with.
		d.Log = d.Log.WithOptions(zap.Hooks(func(e zapcore.Entry) error {
			if strings.Contains(e.Message, "was overdue") {
				listed <- struct{}{}
				r.alter(second.ID, bson.D{{Key: "rev", Value: second.Rev + 1}})
			}
			return nil
		}))
	})
	first := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Due.At = g.Due.At.Add(-time.Second) })
	second = r.Connect(w, meshsim.ConnectSpec{})
	r.Clock.Advance(slack + time.Second)
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.Len(t, listed, 1)
	require.Equal(t, 1, r.Get(w, first.ID).Due.Reschedules)
	require.Zero(t, r.Get(w, second.ID).Due.Reschedules)
	require.Nil(t, r.schedule(second.ID))
	require.Empty(t, r.dueMessages(second.ID))
}

func TestPassDropsWhatNeedNotBeKept(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	purge := r.Clock.Now().Add(hour)
	g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.State, g.Due, g.PurgeAt = store.Expired, nil, &purge })
	kept := r.Connect(w, meshsim.ConnectSpec{})
	scope := store.Scope{User: "user", Broker: "coinbase"}
	require.NoError(t, w.Store.RecordRevocation(t.Context(), scope, r.Clock.Now(), purge))
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	r.Get(w, g.ID)
	r.Clock.Advance(hour + time.Millisecond)
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	_, err := w.Store.Get(t.Context(), g.ID)
	require.ErrorIs(t, err, store.ErrNotFound)
	r.Get(w, kept.ID)
	remembered, err := w.Store.Revocations(t.Context(), "user", "coinbase", nil)
	require.NoError(t, err)
	require.Empty(t, remembered)
}

func TestStepsAreIndependent(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.changed(w, hour)
	w.Topology.DueQueuesFunc = func(context.Context) ([]streams.DueQueue, error) { return nil, context.DeadlineExceeded }
	r.Clock.Advance(slack + time.Second)
	require.ErrorIs(t, w.Reconciler.Pass(t.Context()), context.DeadlineExceeded)
	require.Nil(t, r.Get(w, g.ID).Outbox)
}

func TestAWipedBrokerGetsAllSchedulesAgain(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	var grants []*store.Grant
	for range 3 {
		g := r.changed(w, hour)
		require.NoError(t, w.Dispatcher.Deliver(t.Context(), g))
		grants = append(grants, g)
	}
	before := w.Dispatcher.Streams()
	r.Broker.Wipe()
	r.Broker.Restart()
	r.Eventually(func() bool { return w.Reconciler.Pass(t.Context()) == nil }, "a pass, once NATS is back")
	require.NotEqual(t, before, w.Dispatcher.Streams())
	for _, g := range grants {
		require.NotNil(t, r.schedule(g.ID))
		require.Equal(t, w.Dispatcher.Stream(g.ID), r.Get(w, g.ID).Due.Stream)
	}
	require.Equal(t, 1, r.Logs.FilterMessageSnippet("Their schedules are made again").Len())

	other := r.Worker("b") // learns the same from what is stored
	require.Equal(t, w.Dispatcher.Streams(), other.Dispatcher.Streams())
	require.Equal(t, 1, r.Logs.FilterMessageSnippet("Their schedules are made again").Len())
}

func TestRunReconcilesUntilTold(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	w.Reconciler.Settings().Interval = time.Millisecond
	g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Due = &store.Due{At: r.Clock.Now().Add(hour), Action: store.Refresh} })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.Reconciler.Run(ctx); close(ended) }()
	r.Eventually(func() bool { return r.Get(w, g.ID).Due.Stream != "" }, "scheduled")
	later := r.changed(w, hour)
	r.Clock.Advance(slack + time.Second)
	r.Eventually(func() bool { return r.Get(w, later.ID).Outbox == nil }, "a later pass")
	cancel()
	r.Wait(ended)
	require.Equal(t, events.TokenStored+": ", r.LifecycleEvents("user")[0])
}

// A step that hangs is cut short, and keeps no other from running.
func TestAStepThatHangsKeepsNoOtherFromRunning(t *testing.T) {
	r := newRig(t)
	w := r.Worker("w")
	w.Reconciler.Settings().Interval = time.Millisecond
	w.Topology.DueQueuesFunc = func(ctx context.Context) ([]streams.DueQueue, error) {
		_, bounded := ctx.Deadline()
		require.False(t, bounded, "calls keep their own bounds")
		<-ctx.Done()
		return nil, ctx.Err()
	}
	require.NoError(t, w.Store.RecordRevocation(t.Context(), store.Scope{User: "u", Broker: "b"}, r.Clock.Now(), r.Clock.Now().Add(-time.Minute)))
	err := w.Reconciler.Pass(t.Context())
	require.ErrorContains(t, err, "timed out")
	disconnects, err := w.Store.Revocations(t.Context(), "u", "b", nil)
	require.NoError(t, err)
	require.Empty(t, disconnects, "the step after it has not run")
}
