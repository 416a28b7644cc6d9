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
	w := r.worker("a")
	g := r.changed(w, horizon+day) // so that the outbox is all that there is to do
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.Empty(t, r.told("user"), "whoever changed it has some time to send it")
	r.clock.advance(slack + time.Second)
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.Equal(t, []string{"token.stored: ", "token.refreshed: "}, r.told("user"))
	require.Nil(t, r.get(w, g.ID).Outbox)
}

func TestPassSchedulesWhatIsDueWithinTheHorizon(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	in := func(d time.Duration) func(*store.Grant) {
		return func(g *store.Grant) {
			g.Access.ExpiresAt = nil // nothing has to be announced
			g.Due = &store.Due{At: r.clock.Now().Add(d), Action: store.Refresh}
		}
	}
	near, far := r.connect(w, meshsim.ConnectSpec{}, in(hour)), r.connect(w, meshsim.ConnectSpec{}, in(horizon+hour))
	never := r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Due = nil })
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.NotNil(t, r.schedule(near.ID))
	require.Nil(t, r.schedule(far.ID))
	require.Nil(t, r.schedule(never.ID))
	require.Equal(t, w.dispatcher.Stream(near.ID), r.get(w, near.ID).Due.Stream)

	first := r.schedule(near.ID).Sequence
	r.clock.advance(2 * time.Minute)
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.Equal(t, first, r.schedule(near.ID).Sequence, "once is enough")

	r.clock.advance(hour)
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.NotNil(t, r.schedule(far.ID), "its time has come near")
}

func TestPassWorksInPages(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	w.reconciler.Settings().Batch = 2
	var ids []string
	for i := range 7 {
		g := r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
			g.Due = &store.Due{At: r.clock.Now().Add(time.Duration(i+1) * hour), Action: store.Refresh}
		})
		ids = append(ids, g.ID)
	}
	require.NoError(t, w.reconciler.Pass(t.Context()))
	for _, id := range ids {
		require.NotNil(t, r.schedule(id))
	}
}

func TestPassMakesALostMessageGoodEverMoreRarely(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{})
	made := func() int { return len(r.fired(g.ID)) }
	pass := func(want int) {
		t.Helper()
		require.NoError(t, w.reconciler.Pass(t.Context()))
		// Overdue schedules fire at once, but not within the call.
		r.eventually(func() bool { return made() >= want && r.schedule(g.ID) == nil }, fmt.Sprint("message number ", want))
		require.Equal(t, want, made())
	}
	pass(0)
	r.clock.advance(slack + time.Millisecond)
	pass(1)
	require.Equal(t, due(g).DueAt, r.fired(g.ID)[0].DueAt.UTC())
	for n, gap := 1, 2*slack; n < 4; n, gap = n+1, 2*gap {
		r.clock.advance(gap - time.Millisecond)
		pass(n)
		r.clock.advance(time.Millisecond)
		pass(n + 1)
		require.Equal(t, n+1, r.get(w, g.ID).Due.Reschedules)
	}
}

func TestPassLeavesAloneWhatIsOnlyLate(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	leased := r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Lease = &store.Lease{Owner: "b", Until: r.clock.Now().Add(hour)} })
	queued := r.connect(w, meshsim.ConnectSpec{})
	r.clock.advance(2 * slack)
	w.queue = streams.DueQueue{Now: r.clock.Now(), Unhandled: queued.Due.At, Undelivered: queued.Due.At}
	pokes := func(want int) {
		t.Helper()
		require.NoError(t, w.reconciler.Pass(t.Context()))
		require.Zero(t, r.get(w, leased.ID).Due.Reschedules)
		require.Equal(t, want, r.get(w, queued.ID).Due.Reschedules)
	}
	pokes(0)
	r.clock.advance(hour / 2) // however long the queue takes to get there
	pokes(0)
	w.queue.Undelivered = time.Time{}
	w.queue.Unhandled = r.clock.Now().Add(-slack)
	pokes(1) // it has got past: the message was lost

	other := r.connect(w, meshsim.ConnectSpec{})
	r.clock.advance(2 * slack)
	w.queue.Now, w.queue.Unhandled = r.clock.Now(), other.Due.At
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.Zero(t, r.get(w, other.ID).Due.Reschedules, "a worker may be at it")
	r.clock.advance(8 * slack)
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.Equal(t, 1, r.get(w, other.ID).Due.Reschedules, "what is stuck with a worker is no excuse for ever")
}

// Where a queue can't be looked at nothing of it is taken for lost; what else there
// is to do is done.
func TestAQueueThatCannotBeSeenHoldsEverything(t *testing.T) {
	r := newRig(t)
	w := r.worker("a", served)
	g := r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Access = nil })
	r.clock.advance(hour)
	away := errors.New("away")
	for _, queues := range [][]streams.DueQueue{nil, {{Unreadable: true}}} {
		w.topology.queues = func(context.Context) ([]streams.DueQueue, error) { return queues, away }
		require.ErrorIs(t, w.reconciler.Pass(t.Context()), away)
		require.Zero(t, r.get(w, g.ID).Due.Reschedules)
		require.NotEmpty(t, r.get(w, g.ID).Warned, "that it has no token is announced all the same")
	}
}

func TestPassLeavesAloneWhatIsPutOff(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	served := func(g *store.Grant) { g.Access.ExpiresAt = nil }
	putOff, changed, spoilt := r.connect(w, meshsim.ConnectSpec{}, served), r.connect(w, meshsim.ConnectSpec{}, served), r.connect(w, meshsim.ConnectSpec{}, served)
	back := r.clock.Now().Add(hour)
	require.NoError(t, w.dispatcher.Postpone(t.Context(), due(putOff), back))
	old := due(changed)
	old.DueAt = old.DueAt.Add(-time.Second) // of another action than is due now
	require.NoError(t, w.dispatcher.Postpone(t.Context(), old, back))
	require.NoError(t, w.dispatcher.Postpone(t.Context(), due(spoilt), back))
	kept := r.schedule(spoilt.ID)
	_, err := r.js.PublishMsg(t.Context(), &nats.Msg{Subject: kept.Subject, Header: kept.Header, Data: []byte("no schedule")})
	require.NoError(t, err)
	r.clock.advance(hour - time.Second)
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.Zero(t, r.get(w, putOff.ID).Due.Reschedules)
	require.NotNil(t, r.schedule(putOff.ID))
	require.Equal(t, 1, r.get(w, changed.ID).Due.Reschedules)
	require.Equal(t, 1, r.get(w, spoilt.ID).Due.Reschedules)

	r.clock.advance(2 * time.Second) // and now it should have come
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.Equal(t, 1, r.get(w, putOff.ID).Due.Reschedules)
}

func TestAPageOfStuckGrantsDoesNotHideTheRest(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	w.reconciler.Settings().Batch = 1
	for i := range 25 { // more than one pass walks through
		r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
			g.Due.At = g.Due.At.Add(time.Duration(i-100) * time.Second)
			g.Lease = &store.Lease{Owner: "b", Until: r.clock.Now().Add(hour)}
		})
	}
	last := r.connect(w, meshsim.ConnectSpec{})
	r.clock.advance(2 * slack)
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.Equal(t, 1, r.get(w, last.ID).Due.Reschedules)
}

func TestWhatChangedSinceItWasListedIsLeftAlone(t *testing.T) {
	r := newRig(t)
	var second *store.Grant
	listed := make(chan struct{}, 2)
	w := r.worker("a", func(d *refresher.Deps) {
		// Another worker refreshes the second grant while the first is dealt with.
		d.Log = d.Log.WithOptions(zap.Hooks(func(e zapcore.Entry) error {
			if strings.Contains(e.Message, "was overdue") {
				listed <- struct{}{}
				r.alter(second.ID, bson.D{{Key: "rev", Value: second.Rev + 1}})
			}
			return nil
		}))
	})
	first := r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Due.At = g.Due.At.Add(-time.Second) })
	second = r.connect(w, meshsim.ConnectSpec{})
	r.clock.advance(slack + time.Second)
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.Len(t, listed, 1)
	require.Equal(t, 1, r.get(w, first.ID).Due.Reschedules)
	require.Zero(t, r.get(w, second.ID).Due.Reschedules)
	require.Nil(t, r.schedule(second.ID))
	require.Empty(t, r.fired(second.ID))
}

func TestPassDropsWhatNeedNotBeKept(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	purge := r.clock.Now().Add(hour)
	g := r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.State, g.Due, g.PurgeAt = store.Expired, nil, &purge })
	kept := r.connect(w, meshsim.ConnectSpec{})
	scope := store.Scope{User: "user", Broker: "coinbase"}
	require.NoError(t, w.store.Revoke(t.Context(), scope, r.clock.Now(), purge))
	require.NoError(t, w.reconciler.Pass(t.Context()))
	r.get(w, g.ID)
	r.clock.advance(hour + time.Millisecond)
	require.NoError(t, w.reconciler.Pass(t.Context()))
	_, err := w.store.Get(t.Context(), g.ID)
	require.ErrorIs(t, err, store.ErrNotFound)
	r.get(w, kept.ID)
	remembered, err := w.store.Revocations(t.Context(), "user", "coinbase", nil)
	require.NoError(t, err)
	require.Empty(t, remembered)
}

func TestStepsAreIndependent(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.changed(w, hour)
	w.topology.queues = func(context.Context) ([]streams.DueQueue, error) { return nil, context.DeadlineExceeded }
	r.clock.advance(slack + time.Second)
	require.ErrorIs(t, w.reconciler.Pass(t.Context()), context.DeadlineExceeded)
	require.Nil(t, r.get(w, g.ID).Outbox)
}

func TestAWipedBrokerGetsAllSchedulesAgain(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	var grants []*store.Grant
	for range 3 {
		g := r.changed(w, hour)
		require.NoError(t, w.dispatcher.Deliver(t.Context(), g))
		grants = append(grants, g)
	}
	before := w.dispatcher.Streams()
	r.broker.Wipe()
	r.broker.Restart()
	r.eventually(func() bool { return w.reconciler.Pass(t.Context()) == nil }, "a pass, once NATS is back")
	require.NotEqual(t, before, w.dispatcher.Streams())
	for _, g := range grants {
		require.NotNil(t, r.schedule(g.ID))
		require.Equal(t, w.dispatcher.Stream(g.ID), r.get(w, g.ID).Due.Stream)
	}
	require.Equal(t, 1, r.logs.FilterMessageSnippet("all schedules are made again").Len())

	other := r.worker("b") // learns the same from what is stored
	require.Equal(t, w.dispatcher.Streams(), other.dispatcher.Streams())
	require.Equal(t, 1, r.logs.FilterMessageSnippet("all schedules are made again").Len())
}

func TestRunReconcilesUntilTold(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	w.reconciler.Settings().Interval = time.Millisecond
	g := r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Due = &store.Due{At: r.clock.Now().Add(hour), Action: store.Refresh} })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.reconciler.Run(ctx); close(ended) }()
	r.eventually(func() bool { return r.get(w, g.ID).Due.Stream != "" }, "scheduled")
	later := r.changed(w, hour)
	r.clock.advance(slack + time.Second)
	r.eventually(func() bool { return r.get(w, later.ID).Outbox == nil }, "a later pass")
	cancel()
	r.wait(ended)
	require.Equal(t, events.TokenStored+": ", r.told("user")[0])
}

// A step that hangs is cut short, and keeps no other from running.
func TestAStepThatHangsKeepsNoOtherFromRunning(t *testing.T) {
	r := newRig(t)
	w := r.worker("w")
	w.reconciler.Settings().Interval = time.Millisecond
	w.topology.queues = func(ctx context.Context) ([]streams.DueQueue, error) {
		_, bounded := ctx.Deadline()
		require.False(t, bounded, "calls keep their own bounds")
		<-ctx.Done()
		return nil, ctx.Err()
	}
	require.NoError(t, w.store.Revoke(t.Context(), store.Scope{User: "u", Broker: "b"}, r.clock.Now(), r.clock.Now().Add(-time.Minute)))
	err := w.reconciler.Pass(t.Context())
	require.ErrorContains(t, err, "too long")
	disconnects, err := w.store.Revocations(t.Context(), "u", "b", nil)
	require.NoError(t, err)
	require.Empty(t, disconnects, "the step after it has not run")
}
