package client_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
)

// A second subscriber can't take events away from the first.
func TestADurableOfOtherSettingsIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stream := b.lifecycle()
	s := client.Subscription{Durable: "d", Kinds: []string{events.TokenStored, events.TokenExpired}, Users: []string{"alice"}}
	first := b.subscribe(b.client(), s)
	b.tell("1", events.TokenStored, "alice")
	first.hears("1", nil)
	before, err := stream.Consumer(b.ctx, "d")
	require.NoError(t, err)

	kinds, users, wait := s, s, s
	kinds.Kinds, users.Users, wait.AckWait = []string{events.TokenRevoked}, nil, time.Minute
	for named, other := range map[string]client.Subscription{
		"token.revoked.alice": kinds, "token.expired.*": users, "an ack wait of 30s, not 1m0s": wait,
	} {
		err := b.client().Subscribe(b.ctx, other, nil)
		require.ErrorIs(t, err, client.ErrDurable)
		require.ErrorContains(t, err, named)
	}
	after, err := stream.Consumer(b.ctx, "d")
	require.NoError(t, err)
	require.Equal(t, before.CachedInfo().Config, after.CachedInfo().Config)

	// The same settings share the events, wherever the consumer once began.
	s.NewOnly = true
	second := b.subscribe(b.client(), s)
	b.tell("2", events.TokenStored, "alice")
	for told := ""; told == ""; {
		select {
		case e := <-first.heard:
			told = e.ID
			first.say <- nil
		case e := <-second.heard:
			told = e.ID
			second.say <- nil
		case <-b.ctx.Done():
			t.Fatal("2 is not heard")
		}
	}
	require.NoError(t, first.ends())
	require.NoError(t, second.ends())
	b.tell("3", events.TokenExpired, "alice")
	s.NewOnly = false
	third := b.subscribe(b.client(), s)
	third.hears("3", nil)
	require.NoError(t, third.ends())
}

func TestADurableMadeByAnOperator(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stream := b.lifecycle()
	s := client.Subscription{Durable: "d", Kinds: []string{events.TokenExpired}}
	base := jetstream.ConsumerConfig{
		Durable: "d", FilterSubject: b.subjects.LifecycleAll(events.TokenExpired), AckPolicy: jetstream.AckExplicitPolicy,
		Description: "the operator's", MaxAckPending: 7, Metadata: map[string]string{"owner": "somebody"},
	}
	for named, change := range map[string]func(*jetstream.ConsumerConfig){
		"at most 3 deliveries":   func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 3 },
		"headers only":           func(c *jetstream.ConsumerConfig) { c.HeadersOnly = true },
		"the ack policy AckNone": func(c *jetstream.ConsumerConfig) { c.AckPolicy = jetstream.AckNonePolicy },
	} {
		cfg := base
		change(&cfg)
		_, err := stream.CreateConsumer(b.ctx, cfg)
		require.NoError(t, err)
		err = b.client().Subscribe(b.ctx, s, nil)
		require.ErrorIs(t, err, client.ErrDurable)
		require.ErrorContains(t, err, named)
		require.NoError(t, stream.DeleteConsumer(b.ctx, "d"))
	}
	push := base
	push.DeliverSubject = "somewhere"
	_, err := b.js.CreatePushConsumer(b.ctx, b.subjects.LifecycleStream(), push)
	require.NoError(t, err)
	require.ErrorIs(t, b.client().Subscribe(b.ctx, s, nil), client.ErrDurable)
	require.NoError(t, stream.DeleteConsumer(b.ctx, "d"))

	_, err = stream.CreateConsumer(b.ctx, base) // what has nothing to do with the subscription stays
	require.NoError(t, err)
	b.tell("1", events.TokenExpired, "alice")
	sub := b.subscribe(b.client(), s)
	sub.hears("1", nil)
	require.NoError(t, sub.ends())
	consumer, err := stream.Consumer(b.ctx, "d")
	require.NoError(t, err)
	require.Equal(t, "the operator's", consumer.CachedInfo().Config.Description)
	require.Equal(t, 7, consumer.CachedInfo().Config.MaxAckPending)
}

// hearsUntil has the handler succeed with whatever comes until an event came.
func (s *subscriber) hearsUntil(id string) (heard []string) {
	s.b.t.Helper()
	for {
		select {
		case e := <-s.heard:
			heard = append(heard, e.ID)
			s.say <- nil
			if e.ID == id {
				return heard
			}
		case err := <-s.ended:
			s.b.t.Fatalf("ended while waiting for %s: %v", id, err)
		case <-s.b.ctx.Done():
			s.b.t.Fatalf("%s is lost; heard %q", id, heard)
		}
	}
}

// What happens between the loss of a consumer and the next is no gap, and what was
// acknowledged before the subscription stays done.
func TestALostConsumerContinuesWhereItWas(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stream := b.lifecycle()
	b.tell("before", events.TokenStored, "alice")
	s := client.Subscription{Durable: "d", NewOnly: true}
	sub := b.subscribe(b.client(), s)
	require.Eventually(t, func() bool {
		_, err := stream.Consumer(b.ctx, "d")
		return err == nil
	}, patience, 5*time.Millisecond)
	b.tell("1", events.TokenStored, "alice")
	<-sub.heard
	require.NoError(t, stream.DeleteConsumer(b.ctx, "d"))
	b.tell("2", events.TokenStored, "alice")
	b.tell("3", events.TokenStored, "alice")
	sub.say <- nil
	heard := sub.hearsUntil("3")
	require.Contains(t, heard, "2")
	require.NotContains(t, heard, "before")
	require.NoError(t, sub.ends())
}

// A stream that was made again counts from 1: all of it is new.
func TestALostStreamIsReadFromItsBeginning(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.lifecycle()
	for range 5 {
		b.tell("before", events.TokenStored, "alice")
	}
	sub := b.subscribe(b.client(), client.Subscription{Durable: "d"})
	for range 5 {
		sub.hears("before", nil)
	}
	require.NoError(t, sub.ends()) // so that the next knows how far it is
	sub = b.subscribe(b.client(), client.Subscription{Durable: "d"})
	b.tell("1", events.TokenStored, "alice")
	<-sub.heard
	require.NoError(t, b.js.DeleteStream(b.ctx, b.subjects.LifecycleStream()))
	b.lifecycle()
	b.tell("2", events.TokenStored, "alice")
	sub.say <- nil
	require.Contains(t, sub.hearsUntil("2"), "2")
	require.NoError(t, sub.ends())
}

// A consumer of other settings that takes the place of a lost one ends the subscription.
func TestALostConsumerIsNotReplacedByAnother(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stream := b.lifecycle()
	b.tell("1", events.TokenStored, "alice")
	late := atomic.Bool{}
	clock := client.Clock(func() time.Time {
		if late.Load() {
			return connectedAt.Add(time.Hour)
		}
		return connectedAt
	})
	sub := b.subscribe(b.client(clock), client.Subscription{Durable: "d"})
	<-sub.heard
	require.NoError(t, stream.DeleteConsumer(b.ctx, "d"))
	_, err := stream.CreateConsumer(b.ctx, jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: b.subjects.LifecycleAll(events.TokenRevoked)})
	require.NoError(t, err)
	late.Store(true)
	sub.say <- nil
	select {
	case err := <-sub.ended:
		require.ErrorIs(t, err, client.ErrDurable)
	case <-b.ctx.Done():
		t.Fatal("it goes on")
	}
}
