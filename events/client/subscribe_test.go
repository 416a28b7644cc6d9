package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
)

// subscriber is a running subscription.
type subscriber struct {
	b     *bench
	heard chan events.LifecycleEvent
	say   chan error // what the handler returns next
	ended chan error
	stop  context.CancelFunc
}

func (b *bench) subscribe(c *client.Client, s client.Subscription) *subscriber {
	ctx, stop := context.WithCancel(b.ctx)
	sub := &subscriber{b, make(chan events.LifecycleEvent), make(chan error), make(chan error, 1), stop}
	go func() {
		sub.ended <- c.Subscribe(ctx, s, func(_ context.Context, e events.LifecycleEvent) error {
			sub.heard <- e
			return <-sub.say
		})
	}()
	b.t.Cleanup(stop)
	return sub
}

// hears waits for the next event and has the handler return err.
func (s *subscriber) hears(id string, err error) {
	s.b.t.Helper()
	select {
	case e := <-s.heard:
		require.Equal(s.b.t, id, e.ID)
		s.say <- err
	case err := <-s.ended:
		s.b.t.Fatalf("ended while waiting for %s: %v", id, err)
	case <-s.b.ctx.Done():
		s.b.t.Fatal("not heard: " + id)
	}
}

// hearsAll waits for these events in any order.
func (s *subscriber) hearsAll(ids ...string) {
	s.b.t.Helper()
	var heard []string
	for range ids {
		select {
		case e := <-s.heard:
			heard = append(heard, e.ID)
			s.say <- nil
		case <-s.b.ctx.Done():
			s.b.t.Fatalf("heard only %q", heard)
		}
	}
	require.ElementsMatch(s.b.t, ids, heard)
}

func (s *subscriber) ends() error {
	s.stop()
	return <-s.ended
}

func TestDurableSubscription(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stream := b.lifecycle()
	problems := make(chan error, 100)
	c := b.client(client.OnError(func(err error) { problems <- err }))
	s := client.Subscription{Durable: "d", Kinds: []string{events.TokenExpired, events.TokenStored, events.TokenExpired}, Users: []string{"a.b", "bob", "bob"}}
	b.tell("1", events.TokenStored, "a.b")
	b.tell("2", events.TokenStored, "carol")
	b.tell("3", events.TokenRefreshed, "bob")
	_, err := b.js.Publish(b.ctx, b.subjects.Lifecycle(events.TokenExpired, "bob"), []byte("{}"))
	require.NoError(t, err)
	b.tell("5", events.TokenExpired, "bob")

	sub := b.subscribe(c, s)
	sub.hears("1", errors.New("not now"))
	require.ErrorContains(t, <-problems, "not now")
	var invalid *events.InvalidError
	require.ErrorAs(t, <-problems, &invalid, "what is no event is passed over")
	sub.hearsAll("5", "1") // 1 again, after a delay that 5 need not wait for
	require.NoError(t, sub.ends())

	b.tell("6", events.TokenStored, "bob")
	b.tell("7", events.TokenStored, "bob")
	sub = b.subscribe(c, s)
	sub.hears("6", nil) // it goes on where it was
	require.NoError(t, stream.DeleteConsumer(b.ctx, "d"))
	// 7 may have been received already; if not, the new consumer begins at the
	// oldest.
	for id := ""; id != "7"; sub.say <- nil {
		select {
		case e := <-sub.heard:
			id = e.ID
		case <-b.ctx.Done():
			t.Fatal("7 is lost")
		}
	}
	select {
	case err := <-problems:
		require.Error(t, err)
	case <-b.ctx.Done():
		t.Fatal("the loss of the consumer was not told")
	}
	require.Eventually(t, func() bool {
		_, err := stream.Consumer(b.ctx, "d")
		return err == nil
	}, patience, 20*time.Millisecond, "the consumer was not made anew")
	sub.stop()
}

func TestDurableSubscriptionAcknowledges(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stream := b.lifecycle()
	sub := b.subscribe(b.client(), client.Subscription{Durable: "d", AckWait: 500 * time.Millisecond})
	b.tell("1", events.TokenStored, "alice")
	<-sub.heard
	// Long past AckWait it still is the handler's.
	consumer, err := stream.Consumer(b.ctx, "d")
	require.NoError(t, err)
	time.Sleep(1200 * time.Millisecond)
	batch, err := consumer.Fetch(1, jetstream.FetchMaxWait(time.Second))
	require.NoError(t, err)
	require.Empty(t, batch.Messages())
	sub.stop() // what is being handled is finished
	sub.say <- nil
	require.NoError(t, <-sub.ended)
	require.Eventually(t, func() bool {
		info, err := consumer.Info(b.ctx)
		return err == nil && info.NumAckPending == 0 && info.AckFloor.Stream == 1
	}, patience, 20*time.Millisecond)
}

func TestOrderedSubscription(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.lifecycle()
	b.tell("1", events.TokenStored, "alice")
	junk := [][]byte{nil, []byte("{}"), []byte("\xff"), b.event("forged", events.TokenStored, "bob"), b.event("forged", events.TokenExpired, "alice")}
	for _, body := range junk {
		_, err := b.js.Publish(b.ctx, b.subjects.Lifecycle(events.TokenStored, "alice"), body)
		require.NoError(t, err)
	}
	b.tell("2", events.TokenRevoked, "alice")
	problems := make(chan error, 100)
	sub := b.subscribe(b.client(client.OnError(func(err error) { problems <- err })), client.Subscription{})
	sub.hears("1", nil)
	for range junk {
		var invalid *events.InvalidError
		require.ErrorAs(t, <-problems, &invalid, "what is no event is passed over")
	}
	sub.hears("2", nil)
	require.NoError(t, sub.ends())

	boom := errors.New("boom")
	sub = b.subscribe(b.client(), client.Subscription{Kinds: []string{events.TokenRevoked}})
	sub.hears("2", boom)
	require.Equal(t, boom, <-sub.ended)

	sub = b.subscribe(b.client(), client.Subscription{NewOnly: true})
	require.Eventually(t, func() bool { // until it is there, it may miss what is told
		b.tell("3", events.TokenStored, "alice")
		select {
		case e := <-sub.heard:
			require.Equal(t, "3", e.ID)
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	}, patience, time.Millisecond)
	sub.say <- nil
}

func TestSubscriptionsThatCanNotBe(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	never := func(context.Context, events.LifecycleEvent) error { return nil }
	for _, s := range []client.Subscription{{Kinds: []string{"token.unknown"}}, {Users: []string{""}}} {
		require.ErrorIs(t, b.client().Subscribe(b.ctx, s, never), client.ErrSubscription)
	}
	for _, s := range []client.Subscription{{}, {Durable: "d"}} {
		require.ErrorIs(t, b.client().Subscribe(b.ctx, s, never), jetstream.ErrStreamNotFound)
	}
}
