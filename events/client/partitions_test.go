package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
)

// newPartitioned is a bench with several streams of events.
func newPartitioned(t *testing.T, number int) *bench {
	t.Helper()
	b := newBench(t)
	b.subjects.Partitions = number
	b.lifecycle()
	return b
}

// watched is a client, what it tells OnError, and a function that has its subscription look
// for streams, and returns when it has looked.
func (b *bench) watched() (*client.Client, chan error, func()) {
	options, problems, look := b.watch()
	return b.client(options...), problems, look
}

func (b *bench) watch() ([]client.Option, chan error, func()) {
	problems, minutes := make(chan error, 1000), make(chan time.Time)
	options := []client.Option{client.OnError(func(err error) { problems <- err }), client.After(func(time.Duration) <-chan time.Time { return minutes })}
	return options, problems, func() {
		b.t.Helper()
		for range 2 { // the second is taken after the first look
			select {
			case minutes <- time.Time{}:
			case <-b.ctx.Done():
				b.t.Fatal("it does not look")
			}
		}
	}
}

// problem waits for what OnError is told.
func (b *bench) problem(problems chan error) error {
	b.t.Helper()
	select {
	case err := <-problems:
		return err
	case <-b.ctx.Done():
		b.t.Fatal("OnError was not told")
		return nil
	}
}

// has waits for the durable consumer of a stream.
func (b *bench) has(n int, durable string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		_, err := b.stream(n).Consumer(b.ctx, durable)
		return err == nil
	}, patience, 5*time.Millisecond)
}

var bothKinds = map[string]client.Subscription{"durable": {Durable: "d"}, "ordered": {}}

func TestEventsOfAllStreamsAreHeard(t *testing.T) {
	t.Parallel()
	for name, s := range bothKinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newPartitioned(t, 3)
			var ids []string
			for i := range 9 {
				ids = append(ids, fmt.Sprint(i))
				b.tell(ids[i], events.TokenStored, b.user(i%3))
			}
			sub := b.subscribe(b.client(), s)
			sub.hearsAll(ids...)
			for i := range 3 {
				b.tell("later", events.TokenExpired, b.user(i))
				sub.hears("later", nil)
			}
			require.NoError(t, sub.ends())

			s.Durable, s.Users, s.Kinds = s.Durable+"s", []string{b.user(1), b.user(2)}, []string{events.TokenExpired}
			if name == "ordered" {
				s.Durable = ""
			}
			sub = b.subscribe(b.client(), s)
			sub.hearsAll("later", "later")
			require.NoError(t, sub.ends())
		})
	}
}

// One event is handled at a time, and the others that are here stay this subscription's.
func TestEventsOfSeveralStreamsWaitForTheirTurn(t *testing.T) {
	t.Parallel()
	b := newPartitioned(t, 3)
	signs := [3]atomic.Int32{}
	for n := range signs {
		_, err := b.nc.Subscribe("$JS.ACK."+b.stream(n).CachedInfo().Config.Name+".>", func(m *nats.Msg) {
			if string(m.Data) == "+WPI" {
				signs[n].Add(1)
			}
		})
		require.NoError(t, err)
		b.tell(fmt.Sprint(n), events.TokenStored, b.user(n))
	}
	sub := b.subscribe(b.client(), client.Subscription{Durable: "d", AckWait: 500 * time.Millisecond})
	first := <-sub.heard
	for n := range signs { // each for longer than AckWait
		require.Eventually(t, func() bool { return signs[n].Load() > 5 }, patience, 5*time.Millisecond, "stream %d", n)
	}
	select {
	case second := <-sub.heard:
		t.Fatalf("%s and %s at once", first.ID, second.ID)
	default:
	}
	sub.say <- nil
	heard := []string{first.ID}
	for range 2 {
		heard = append(heard, (<-sub.heard).ID)
		sub.say <- nil
	}
	require.ElementsMatch(t, []string{"0", "1", "2"}, heard)
	for n := range signs {
		require.Eventually(t, func() bool {
			consumer, err := b.stream(n).Consumer(b.ctx, "d")
			return err == nil && consumer.CachedInfo().AckFloor.Stream == 1 && consumer.CachedInfo().AckFloor.Consumer == 1
		}, patience, 5*time.Millisecond, "stream %d: delivered once, acknowledged once", n)
	}
	require.NoError(t, sub.ends())
}

// What waits for its turn when a subscription ends is another's at once.
func TestEventsThatWaitAreGivenBack(t *testing.T) {
	t.Parallel()
	b := newPartitioned(t, 2)
	for n := range 2 {
		b.tell(fmt.Sprint(n), events.TokenStored, b.user(n))
	}
	s := client.Subscription{Durable: "d", AckWait: time.Hour}
	sub := b.subscribe(b.client(), s)
	first := <-sub.heard
	for n := range 2 {
		require.Eventually(t, func() bool {
			consumer, err := b.stream(n).Consumer(b.ctx, "d")
			return err == nil && consumer.CachedInfo().NumAckPending == 1
		}, patience, 5*time.Millisecond)
	}
	sub.stop()
	sub.say <- nil
	require.NoError(t, <-sub.ended)
	sub = b.subscribe(b.client(), s)
	sub.hears(map[string]string{"0": "1", "1": "0"}[first.ID], nil)
	require.NoError(t, sub.ends())
}

func TestSubscribersShareADurableOfSeveralStreams(t *testing.T) {
	t.Parallel()
	b := newPartitioned(t, 3)
	heard := make(chan string, 100)
	failed := atomic.Bool{}
	c, problems, _ := b.watched()
	ctx, stop := context.WithCancel(b.ctx)
	defer stop()
	ended := make(chan error, 2)
	for range 2 {
		go func() {
			ended <- c.Subscribe(ctx, client.Subscription{Durable: "d"}, func(_ context.Context, e events.LifecycleEvent) error {
				if e.ID == "4" && failed.CompareAndSwap(false, true) {
					return errors.New("not now")
				}
				heard <- e.ID
				return nil
			})
		}()
	}
	want := map[string]int{}
	for i := range 12 {
		want[fmt.Sprint(i)] = 1
		b.tell(fmt.Sprint(i), events.TokenStored, b.user(i%3))
	}
	got := map[string]int{}
	for range 12 {
		select {
		case id := <-heard:
			got[id]++
		case err := <-ended:
			t.Fatal(err)
		case <-b.ctx.Done():
			t.Fatalf("heard only %v", got)
		}
	}
	require.Equal(t, want, got)
	require.ErrorContains(t, b.problem(problems), "not now")
	require.Empty(t, problems)
	stop()
	require.NoError(t, <-ended)
	require.NoError(t, <-ended)
}

// An error of handle lets no event of another stream in.
func TestAnErrorEndsAnOrderedSubscriptionToSeveralStreams(t *testing.T) {
	t.Parallel()
	b := newPartitioned(t, 3)
	for i := range 9 {
		b.tell(fmt.Sprint(i), events.TokenStored, b.user(i%3))
	}
	boom, calls := errors.New("boom"), 0
	err := b.client().Subscribe(b.ctx, client.Subscription{}, func(context.Context, events.LifecycleEvent) error {
		calls++
		return boom
	})
	require.Equal(t, boom, err)
	require.Equal(t, 1, calls)
}

// Each stream's consumer continues where it was.
func TestALostConsumerOfOneStreamContinuesWhereItWas(t *testing.T) {
	t.Parallel()
	b := newPartitioned(t, 3)
	for n := range 3 {
		b.tell(fmt.Sprint("before", n), events.TokenStored, b.user(n))
	}
	c, problems, _ := b.watched()
	sub := b.subscribe(c, client.Subscription{Durable: "d", NewOnly: true})
	b.has(1, "d")
	b.tell("1", events.TokenStored, b.user(1))
	<-sub.heard
	require.NoError(t, b.stream(1).DeleteConsumer(b.ctx, "d"))
	b.tell("2", events.TokenStored, b.user(1))
	sub.say <- nil
	heard := sub.hearsUntil("2")
	require.NotContains(t, strings.Join(heard, " "), "before")
	require.ErrorContains(t, b.problem(problems), b.stream(1).CachedInfo().Config.Name)
	require.NoError(t, sub.ends())
}

// A consumer that NATS lost before it brought anything misses nothing either.
func TestALostOrderedConsumerContinuesWhereItWas(t *testing.T) {
	t.Parallel()
	for _, newOnly := range []bool{true, false} {
		t.Run(fmt.Sprint("NewOnly ", newOnly), func(t *testing.T) {
			t.Parallel()
			b := newPartitioned(t, 2)
			b.tell("before", events.TokenStored, b.user(1))
			sub := b.subscribe(b.client(), client.Subscription{NewOnly: newOnly})
			lose := func() {
				require.Eventually(t, func() bool {
					for info := range b.stream(1).ListConsumers(b.ctx).Info() {
						return b.stream(1).DeleteConsumer(b.ctx, info.Name) == nil
					}
					return false
				}, patience, 5*time.Millisecond)
			}
			if newOnly {
				lose()
			} else {
				sub.hears("before", nil)
			}
			b.tell("1", events.TokenStored, b.user(1))
			sub.hears("1", nil)
			name := b.stream(1).CachedInfo().Config.Name
			require.NoError(t, b.js.DeleteStream(b.ctx, name)) // it counts from 1 again
			b.lifecycle()
			b.tell("2", events.TokenStored, b.user(1))
			sub.hears("2", nil)
			require.NoError(t, sub.ends())
		})
	}
}

// NATS's library makes a lost ordered consumer anew by itself, and continues by sequence.
func TestAnOrderedConsumerMissesNothingOfAStreamThatWasMadeAnew(t *testing.T) {
	t.Parallel()
	b := newPartitioned(t, 2)
	user, name := b.user(1), b.stream(1).CachedInfo().Config.Name
	for _, id := range []string{"1", "2", "3"} {
		b.tell(id, events.TokenStored, user)
	}
	sub := b.subscribe(b.client(), client.Subscription{})
	sub.hears("1", nil)
	sub.hears("2", nil)
	require.Equal(t, "3", (<-sub.heard).ID)
	require.NoError(t, b.js.DeleteStream(b.ctx, name)) // unnoticed while 3 is handled
	b.lifecycle()
	b.tell("4", events.TokenStored, user)
	sub.say <- nil
	require.Eventually(t, func() bool {
		return b.stream(1).CachedInfo().State.Consumers > 0
	}, patience, 5*time.Millisecond)
	b.tell("5", events.TokenStored, user)
	sub.hears("4", nil)
	sub.hears("5", nil)
	require.NoError(t, sub.ends())
}

// away is JetStream that, at times, does not answer what a stream is like, and loses ordered
// consumers.
type away struct {
	jetstream.JetStream
	now *atomic.Bool
}

var errAway = errors.New("away")

func (j away) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	if j.now.Load() {
		return nil, errAway
	}
	return j.JetStream.Stream(ctx, name)
}

func (j away) OrderedConsumer(ctx context.Context, stream string, cfg jetstream.OrderedConsumerConfig) (jetstream.Consumer, error) {
	c, err := j.JetStream.OrderedConsumer(ctx, stream, cfg)
	return lostConsumer{c, j}, err
}

type lostConsumer struct {
	jetstream.Consumer
	away
}

func (c lostConsumer) Messages(options ...jetstream.PullMessagesOpt) (jetstream.MessagesContext, error) {
	m, err := c.Consumer.Messages(options...)
	return lostMessages{m, c.away}, err
}

type lostMessages struct {
	jetstream.MessagesContext
	away
}

func (m lostMessages) Next(options ...jetstream.NextOpt) (jetstream.Msg, error) {
	msg, err := m.MessagesContext.Next(options...)
	if m.now.Load() {
		return nil, jetstream.ErrConsumerDeleted
	}
	return msg, err
}

// Who can't ask at the moment where to continue asks again, and does not begin anew.
func TestWhoDoesNotKnowYetWhereToContinueWaits(t *testing.T) {
	t.Parallel()
	for name, s := range bothKinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newPartitioned(t, 1)
			var now atomic.Bool
			options, problems, _ := b.watch()
			c := b.client(append(options, client.JetStream(func(js jetstream.JetStream) jetstream.JetStream { return away{js, &now} }))...)
			b.tell("1", events.TokenStored, "alice")
			if s.Durable != "" { // which knows from then on that 1 was handled
				before := b.subscribe(b.client(), s)
				before.hears("1", nil)
				require.Eventually(t, func() bool {
					consumer, err := b.stream(0).Consumer(b.ctx, s.Durable)
					return err == nil && consumer.CachedInfo().AckFloor.Stream == 1
				}, patience, 5*time.Millisecond)
				require.NoError(t, before.ends())
			}
			sub := b.subscribe(c, s)
			if s.Durable == "" {
				sub.hears("1", nil)
			} else {
				require.Eventually(t, func() bool {
					consumer, err := b.stream(0).Consumer(b.ctx, s.Durable)
					return err == nil && consumer.CachedInfo().NumWaiting > 0
				}, patience, 5*time.Millisecond)
			}
			now.Store(true)
			if s.Durable != "" {
				require.NoError(t, b.stream(0).DeleteConsumer(b.ctx, s.Durable))
			}
			b.tell("2", events.TokenStored, "alice")
			for !errors.Is(b.problem(problems), errAway) {
			}
			now.Store(false)
			sub.hears("2", nil)
			require.NoError(t, sub.ends())
		})
	}
}
