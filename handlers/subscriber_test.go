package handlers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/store/streams"
)

func TestFailedMessageComesBackAfterItsDelay(t *testing.T) {
	f := newFixture(t)
	f.messages.MaxDeliver = 100
	f.messages.Backoff.Min, f.messages.Backoff.Max = 400*time.Millisecond, 400*time.Millisecond
	attempts := make(chan time.Time, 10)
	f.run(4, func(_ context.Context, msg *message.Message) error {
		d := deliveryOf(msg)
		require.Equal(t, len(attempts)+1, d.Attempt)
		require.Equal(t, f.subjects.Connected(), d.Subject)
		require.WithinDuration(t, time.Now(), d.FirstStoredAt, patience)
		attempts <- time.Now()
		if d.Attempt < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	f.publish("x")
	f.eventually(func() bool { return f.left(f.subjects.IntegrationStream()) == 0 }, "not handled")
	require.Len(t, attempts, 3)
	first, second, third := <-attempts, <-attempts, <-attempts
	// Half of the pause is left to chance.
	require.GreaterOrEqual(t, second.Sub(first), 200*time.Millisecond)
	require.GreaterOrEqual(t, third.Sub(second), 200*time.Millisecond)
}

func TestSlowMessageIsNotDeliveredAgain(t *testing.T) {
	f := newFixture(t)
	var deliveries atomic.Int32
	done := make(chan struct{})
	f.run(4, func(context.Context, *message.Message) error {
		deliveries.Add(1)
		time.Sleep(3 * f.messages.AckWait) // the passing of time is what is tested
		close(done)
		return nil
	})
	f.publish("x")
	enginestest.Receive(t, done)
	f.eventually(func() bool { return f.left(f.subjects.IntegrationStream()) == 0 }, "not acknowledged")
	require.EqualValues(t, 1, deliveries.Load())
}

func TestNoMoreMessagesAreHandledAtOnceThanAllowed(t *testing.T) {
	f := newFixture(t)
	const most = 3
	var running, peak atomic.Int32
	full, release := make(chan struct{}, 100), make(chan struct{})
	f.run(most, func(context.Context, *message.Message) error {
		now := running.Add(1)
		for p := peak.Load(); now > p && !peak.CompareAndSwap(p, now); p = peak.Load() {
		}
		if now == most {
			full <- struct{}{}
		}
		<-release
		running.Add(-1)
		return nil
	})
	for n := range 20 {
		f.publish(fmt.Sprint(n))
	}
	enginestest.Receive(t, full) // as many as allowed, and they hold their places
	close(release)
	f.eventually(func() bool { return f.left(f.subjects.IntegrationStream()) == 0 }, "not all handled")
	require.EqualValues(t, most, peak.Load())
}

func TestCloseWaitsForMessagesAtWork(t *testing.T) {
	f := newFixture(t)
	begun, release := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	stop := f.run(4, func(ctx context.Context, _ *message.Message) error {
		close(begun)
		<-release
		ended.Store(ctx.Err() == nil) // work under way is not cut short
		return nil
	})
	f.publish("x")
	enginestest.Receive(t, begun)
	closed := make(chan struct{})
	go func() { stop(); close(closed) }()
	select {
	case <-closed:
		t.Fatal("closed while a message is being handled")
	case <-time.After(300 * time.Millisecond):
	}
	close(release)
	enginestest.Receive(t, closed)
	require.True(t, ended.Load())
	f.eventually(func() bool { return f.left(f.subjects.IntegrationStream()) == 0 }, "not acknowledged")
	f.publish("too late")
	require.Equal(t, 1, f.left(f.subjects.IntegrationStream()), "it waits for another worker")
}

func TestCloseLosesNothingOfABacklog(t *testing.T) {
	f := newFixture(t)
	const all = 300
	for n := range all {
		f.publish(fmt.Sprint(n))
	}
	var handled atomic.Int32
	for round := 1; f.left(f.subjects.IntegrationStream()) > 0; round++ {
		before := handled.Load()
		stop := f.run(8, func(context.Context, *message.Message) error { handled.Add(1); return nil })
		f.eventually(func() bool { return handled.Load() > before || f.left(f.subjects.IntegrationStream()) == 0 }, "nothing is handled")
		stop()
	}
	require.GreaterOrEqual(t, handled.Load(), int32(all))
}

func TestConsumerThatIsGoneIsMadeAgain(t *testing.T) {
	f := newFixture(t)
	got := make(chan string, 10)
	f.run(4, func(_ context.Context, msg *message.Message) error { got <- string(msg.Payload); return nil })
	f.publish("before")
	require.Equal(t, "before", enginestest.Receive(t, got))
	f.eventually(func() bool { return f.left(f.subjects.IntegrationStream()) == 0 }, "not acknowledged")
	require.NoError(t, f.js.DeleteConsumer(t.Context(), f.subjects.IntegrationStream(), streams.Durable(f.subjects.Connected())))
	f.publish("after")
	require.Equal(t, "after", enginestest.Receive(t, got))

	require.NoError(t, f.js.DeleteStream(t.Context(), f.subjects.IntegrationStream()))
	f.ensure()
	f.publish("on a new stream")
	require.Equal(t, "on a new stream", enginestest.Receive(t, got))
}

// TestASubscriberSaysWhatItCantReceive, once it is not a matter of a moment, and until it is over.
func TestASubscriberSaysWhatItCantReceive(t *testing.T) {
	s := Subscriber{failures: map[string]int{}}
	away := errors.New("away")
	for range failuresTold - 1 {
		s.count("b", away)
	}
	require.Empty(t, s.Problem())
	for range failuresTold {
		s.count("b", away)
		s.count("a", away)
	}
	require.Equal(t, "receiving fails again and again: a, b", s.Problem())
	s.count("b", nil)
	require.Equal(t, "receiving fails again and again: a", s.Problem())
	s.count("a", nil)
	require.Empty(t, s.Problem())
}

func TestUnknownSubjectIsRefused(t *testing.T) {
	f := newFixture(t)
	_, err := must(NewSubscriber(SubscriberOptions{Streams: f.streams, AckWait: time.Second, Sources: map[string]Source{}, Log: f.log})).Subscribe(t.Context(), "other")
	require.ErrorContains(t, err, "other")
}

// lastMoment is a subscriber to which something happens between the moment at
// which its router begins to close and that at which it stops receiving.
type lastMoment struct {
	*Subscriber
	once   sync.Once
	happen func()
}

func (l *lastMoment) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	receiving, stop := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		l.once.Do(l.happen)
		stop()
	})
	return l.Subscriber.Subscribe(receiving, topic)
}

func (l *lastMoment) Close() error {
	l.once.Do(l.happen)
	return l.Subscriber.Close()
}

func TestCloseWaitsForAMessageThatComesWhileItCloses(t *testing.T) {
	f := newFixture(t)
	begun, handled := make(chan struct{}), atomic.Bool{}
	sub := &lastMoment{Subscriber: f.subscriber(1), happen: func() {
		time.Sleep(50 * time.Millisecond) // the router finds nothing at work: sooner, the test shows nothing
		f.publish("x")
		enginestest.Receive(t, begun)
	}}
	stop := f.runOn(sub, func(context.Context, *message.Message) error {
		close(begun)
		time.Sleep(50 * time.Millisecond) // sooner, the test shows nothing
		handled.Store(true)
		return nil
	})
	stop()
	require.True(t, handled.Load())
	f.eventually(func() bool { return f.left(f.subjects.IntegrationStream()) == 0 }, "not acknowledged")
}
