package refresher_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/refresher"
)

// arrival is somebody who waits in a queue.
type arrival struct {
	name string
	done func(*refresher.Failure)
	err  error
}

// arrive enters in the background and reports to out; it returns once the
// queue holds the waiter.
func arrive(ctx context.Context, q *refresher.Queue, out chan<- arrival, name, broker string, u refresher.Urgency) {
	before := q.Waiting()
	go func() {
		done, err := q.Enter(ctx, broker, u)
		out <- arrival{name, done, err}
	}()
	for q.Waiting() == before {
		time.Sleep(time.Millisecond)
	}
}

func in(d time.Duration) refresher.Urgency {
	return refresher.Urgency{ExpiresAt: t0.Add(d)}
}

func TestTheMostUrgentGoesFirst(t *testing.T) {
	c := newClock(t0)
	q := must(refresher.NewQueue(refresher.QueueOptions{Limits: newLimits(wide(), c), Slots: 1, Room: 10, Now: c.Now}))
	first, err := q.Enter(t.Context(), "a", in(hour))
	require.NoError(t, err)

	out := make(chan arrival, 10)
	arrive(t.Context(), q, out, "idle, soon", "a", refresher.Urgency{Idle: true, ExpiresAt: t0.Add(time.Second)})
	arrive(t.Context(), q, out, "late", "a", in(3*time.Minute))
	arrive(t.Context(), q, out, "soon", "a", in(time.Minute))
	arrive(t.Context(), q, out, "nothing at hand", "a", refresher.Urgency{})
	first(nil)
	for _, want := range []string{"nothing at hand", "soon", "late", "idle, soon"} {
		got := <-out
		require.NoError(t, got.err)
		require.Equal(t, want, got.name)
		got.done(nil)
	}
}

func TestOneBrokersQueueDoesNotHoldUpAnothers(t *testing.T) {
	c := newClock(t0)
	limits := newLimits(wide(func(l *config.Limits) { l.BrokerConcurrency = 1 }), c)
	q := must(refresher.NewQueue(refresher.QueueOptions{Limits: limits, Slots: 10, Room: 10, Now: c.Now}))
	first, err := q.Enter(t.Context(), "slow", in(0))
	require.NoError(t, err)
	out := make(chan arrival, 10)
	arrive(t.Context(), q, out, "waits", "slow", in(0))
	other, err := q.Enter(t.Context(), "quick", in(hour))
	require.NoError(t, err)
	other(nil)
	first(nil)
	got := <-out
	require.NoError(t, got.err)
	got.done(nil)
}

func TestBrokersShareTheSlots(t *testing.T) {
	c := newClock(t0)
	q := must(refresher.NewQueue(refresher.QueueOptions{Limits: newLimits(wide(), c), Slots: 2, Room: 10, Now: c.Now}))
	one, err := q.Enter(t.Context(), "many", in(0))
	require.NoError(t, err)
	two, err := q.Enter(t.Context(), "many", in(0))
	require.NoError(t, err)
	out := make(chan arrival, 10)
	arrive(t.Context(), q, out, "third of many", "many", in(0))
	arrive(t.Context(), q, out, "only one", "few", in(hour))
	one(nil) // many still has one running, few has none
	got := <-out
	require.Equal(t, "only one", got.name)
	got.done(nil)
	require.Equal(t, "third of many", (<-out).name)
	two(nil)
}

func TestAFullQueueSendsTheLeastUrgentAway(t *testing.T) {
	for name, bound := range map[string]func(*config.Limits){
		"where the broker's concurrency is the bound": func(l *config.Limits) { l.BrokerConcurrency = 1 },
		"where the broker's rate is the bound":        func(l *config.Limits) { l.BrokerRate, l.BrokerBurst = 0.001, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock(t0)
			q := must(refresher.NewQueue(refresher.QueueOptions{Limits: newLimits(wide(bound), c), Slots: 5, Room: 2, Now: c.Now}))
			first, err := q.Enter(t.Context(), "a", in(0))
			require.NoError(t, err)
			out := make(chan arrival, 10)
			arrive(t.Context(), q, out, "soon", "a", in(time.Minute))
			arrive(t.Context(), q, out, "late", "a", in(hour))
			go func() { _, err := q.Enter(t.Context(), "a", in(time.Second)); out <- arrival{"soonest", nil, err} }()
			got := <-out
			var later *refresher.LaterError
			require.ErrorAs(t, got.err, &later)
			require.Equal(t, "queue", later.Why)
			require.Equal(t, "late", got.name)
			c.Advance(hour)
			first(nil)
			require.Equal(t, "soonest", (<-out).name)
		})
	}
}

func TestNobodyIsSentAwayForWantOfASlot(t *testing.T) {
	c := newClock(t0)
	q := must(refresher.NewQueue(refresher.QueueOptions{Limits: newLimits(wide(func(l *config.Limits) { l.BrokerConcurrency = 1 }), c), Slots: 2, Room: 2, Now: c.Now}))
	held, err := q.Enter(t.Context(), "held up", in(0))
	require.NoError(t, err)
	free, err := q.Enter(t.Context(), "not held up", in(0))
	require.NoError(t, err)
	free(nil)
	other, err := q.Enter(t.Context(), "other", in(0))
	require.NoError(t, err)
	out := make(chan arrival, 10)
	for range 3 { // more than there is room for, and no slot is free
		arrive(t.Context(), q, out, "waits", "not held up", in(0))
	}
	// Who can't get in because of his broker is who goes, in the shorter line.
	go func() { _, err := q.Enter(t.Context(), "held up", in(0)); out <- arrival{"goes", nil, err} }()
	got := <-out
	require.Equal(t, "goes", got.name)
	require.Error(t, got.err)
	other(nil)
	held(nil)
	for range 3 {
		got := <-out
		require.Equal(t, "waits", got.name)
		require.NoError(t, got.err)
		got.done(nil)
	}
}

func TestWhoIsSentAwayComesBackAtTheRateOfTheBroker(t *testing.T) {
	c := newClock(t0)
	q := must(refresher.NewQueue(refresher.QueueOptions{Limits: newLimits(wide(func(l *config.Limits) { l.BrokerConcurrency, l.BrokerRate = 1, 1 }), c), Slots: 5, Room: 1, Now: c.Now}))
	done, err := q.Enter(t.Context(), "a", in(0))
	require.NoError(t, err)
	out := make(chan arrival, 10)
	arrive(t.Context(), q, out, "next", "a", in(0))
	sentAway := func() time.Duration {
		_, err := q.Enter(t.Context(), "a", in(hour))
		var later *refresher.LaterError
		require.ErrorAs(t, err, &later)
		require.Equal(t, "queue", later.Why)
		return later.After
	}
	for range 2 {
		for i := range 100 {
			require.Equal(t, min(2*time.Second+time.Duration(i)*time.Second, time.Minute), sentAway())
		}
		c.Advance(time.Minute) // they have come back
	}
	done(nil)
	(<-out).done(nil)
}

func TestWaitersAreSentAwayWhenTheBreakerOpens(t *testing.T) {
	c := newClock(t0)
	limits := newLimits(wide(func(l *config.Limits) { l.BreakerFailures, l.BrokerConcurrency = 1, 1 }), c)
	q := must(refresher.NewQueue(refresher.QueueOptions{Limits: limits, Slots: 10, Room: 10, Now: c.Now}))
	first, err := q.Enter(t.Context(), "a", in(0))
	require.NoError(t, err)
	out := make(chan arrival, 10)
	arrive(t.Context(), q, out, "waits", "a", in(0))
	first(&refresher.Failure{Class: refresher.Transient})
	var later *refresher.LaterError
	require.ErrorAs(t, (<-out).err, &later)
	require.Equal(t, "breaker", later.Why)
}

func TestWaitersAreLetInWhenTheRateAllows(t *testing.T) {
	limits := must(refresher.NewLimits(refresher.LimitsOptions{Config: wide(func(l *config.Limits) { l.BrokerRate, l.BrokerBurst = 200, 1 }), Credentials: credentials, Now: time.Now, OnBreaker: func(string, bool) {}}))
	q := must(refresher.NewQueue(refresher.QueueOptions{Limits: limits, Slots: 10, Room: 10, Now: time.Now}))
	for range 5 { // the first at once, the others by the timer
		done, err := q.Enter(t.Context(), "a", in(0))
		require.NoError(t, err)
		done(nil)
	}
}

func TestAWaiterMayGiveUp(t *testing.T) {
	c := newClock(t0)
	q := must(refresher.NewQueue(refresher.QueueOptions{Limits: newLimits(wide(), c), Slots: 1, Room: 10, Now: c.Now}))
	first, err := q.Enter(t.Context(), "a", in(0))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	out := make(chan arrival, 1)
	arrive(ctx, q, out, "gives up", "a", in(0))
	cancel()
	require.ErrorIs(t, (<-out).err, context.Canceled)
	require.Zero(t, q.Waiting())
	first(nil)
	second, err := q.Enter(t.Context(), "a", in(0))
	require.NoError(t, err)
	second(nil)
}

func TestClosingSendsEverybodyAway(t *testing.T) {
	c := newClock(t0)
	q := must(refresher.NewQueue(refresher.QueueOptions{Limits: newLimits(wide(), c), Slots: 1, Room: 10, Now: c.Now}))
	first, err := q.Enter(t.Context(), "a", in(0))
	require.NoError(t, err)
	out := make(chan arrival, 1)
	arrive(t.Context(), q, out, "waits", "a", in(0))
	q.Close()
	require.ErrorIs(t, (<-out).err, context.Canceled)
	_, err = q.Enter(t.Context(), "a", in(0))
	require.ErrorIs(t, err, context.Canceled)
	first(nil) // what runs is not disturbed
}
