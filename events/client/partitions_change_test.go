package client_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
)

// Streams that are added are heard from their beginning, also with NewOnly: the users in them
// were in the first before.
func TestStreamsThatAreAdded(t *testing.T) {
	t.Parallel()
	for name, s := range bothKinds {
		for _, newOnly := range []bool{true, false} {
			t.Run(fmt.Sprint(name, newOnly), func(t *testing.T) {
				t.Parallel()
				b := newPartitioned(t, 1)
				c, problems, look := b.watched()
				s.NewOnly = newOnly
				sub := b.subscribe(c, s)
				look()
				b.subjects.Partitions = 3
				b.lifecycle()
				for n := range 3 {
					b.tell(fmt.Sprint(n), events.TokenStored, b.user(n))
				}
				sub.hears("0", nil)
				look()
				sub.hearsAll("1", "2")
				look()
				b.tell("3", events.TokenStored, b.user(2))
				sub.hears("3", nil)
				require.Empty(t, problems)
				require.NoError(t, sub.ends())
			})
		}
	}
}

// The same while nobody was subscribed: the durable began before the streams did.
func TestStreamsThatAreAddedWhileNobodySubscribes(t *testing.T) {
	t.Parallel()
	b := newPartitioned(t, 1)
	s := client.Subscription{Durable: "d", NewOnly: true}
	b.tell("before", events.TokenStored, "alice")
	sub := b.subscribe(b.client(), s)
	b.has(0, "d")
	require.NoError(t, sub.ends())
	b.subjects.Partitions = 2
	b.lifecycle()
	b.tell("1", events.TokenStored, b.user(1))
	sub = b.subscribe(b.client(), s)
	sub.hears("1", nil)
	require.NoError(t, sub.ends())
}

// A new durable with NewOnly hears nothing old of any stream.
func TestNewOnlyOfSeveralStreams(t *testing.T) {
	t.Parallel()
	for name, s := range bothKinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newPartitioned(t, 2)
			for n := range 2 {
				b.tell("before", events.TokenStored, b.user(n))
			}
			s.NewOnly = true
			c, _, look := b.watched()
			sub := b.subscribe(c, s)
			look() // it has begun with the first stream
			for n := range 2 {
				b.tell(fmt.Sprint(n), events.TokenStored, b.user(n))
			}
			sub.hearsAll("0", "1")
			require.NoError(t, sub.ends())
		})
	}
}

func TestStreamsThatAreRemoved(t *testing.T) {
	t.Parallel()
	for name, s := range bothKinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newPartitioned(t, 3)
			c, problems, look := b.watched()
			sub := b.subscribe(c, s)
			for n := range 3 {
				b.tell(fmt.Sprint(n), events.TokenStored, b.user(n))
			}
			sub.hearsAll("0", "1", "2")
			removed, removedUser := b.stream(2).CachedInfo().Config.Name, b.user(2)

			// One that should be there.
			require.NoError(t, b.js.DeleteStream(b.ctx, removed))
			for {
				if err := b.problem(problems); errors.Is(err, jetstream.ErrStreamNotFound) {
					require.ErrorContains(t, err, removed)
					break
				}
			}
			b.lifecycle()
			b.tell("again", events.TokenStored, removedUser)
			sub.hears("again", nil)

			// One that no longer is the installation's.
			b.subjects.Partitions = 2
			b.lifecycle()
			look()
			for len(problems) > 0 {
				require.Error(t, <-problems)
			}
			// It finds the stream missing, and asks whether that is right.
			asked := make(chan *nats.Msg, 100)
			_, err := b.nc.ChanSubscribe("$JS.API.STREAM.INFO."+b.subjects.LifecycleStream(), asked)
			require.NoError(t, err)
			require.NoError(t, b.js.DeleteStream(b.ctx, removed))
			select {
			case <-asked:
			case <-b.ctx.Done():
				t.Fatal("it does not ask")
			}
			for n := range 2 {
				b.tell(fmt.Sprint("kept", n), events.TokenStored, b.user(n))
				sub.hears(fmt.Sprint("kept", n), nil)
			}
			require.Empty(t, problems)

			// And is again.
			b.subjects.Partitions = 3
			b.lifecycle()
			b.tell("new", events.TokenStored, removedUser)
			look()
			sub.hears("new", nil)
			require.NoError(t, sub.ends())
		})
	}
}

// requests counts requests to JetStream's API from now on.
func (b *bench) requests(subject string) *atomic.Int32 {
	b.t.Helper()
	var n atomic.Int32
	_, err := b.nc.Subscribe("$JS.API."+subject, func(*nats.Msg) { n.Add(1) })
	require.NoError(b.t, err)
	require.NoError(b.t, b.nc.Flush())
	return &n
}

// What is missing when a subscription begins is told, and heard once it is there.
func TestAStreamThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	for name, s := range bothKinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newPartitioned(t, 2)
			missing, user := b.stream(1).CachedInfo().Config.Name, b.user(1)
			require.NoError(t, b.js.DeleteStream(b.ctx, missing))
			c, problems, _ := b.watched()
			sub := b.subscribe(c, s)
			b.tell("0", events.TokenStored, b.user(0))
			sub.hears("0", nil)
			err := b.problem(problems)
			require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
			require.ErrorContains(t, err, missing)
			b.lifecycle()
			b.tell("1", events.TokenStored, user)
			sub.hears("1", nil)
			require.NoError(t, sub.ends())
		})
	}
}

func TestANumberOfStreamsThatIsNoNumber(t *testing.T) {
	t.Parallel()
	b := newPartitioned(t, 1)
	cfg := b.stream(0).CachedInfo().Config
	says := func(number string) {
		cfg.Metadata = map[string]string{events.PartitionsKey: number}
		_, err := b.js.UpdateStream(b.ctx, cfg)
		require.NoError(t, err)
	}
	for _, number := range []string{"", "0", "-1", "+2", "02", "2.0", "two", "257", "99999999999999999999"} {
		says(number)
		for _, s := range bothKinds {
			err := b.client().Subscribe(b.ctx, s, nil)
			require.ErrorIs(t, err, client.ErrPartitions)
			require.ErrorContains(t, err, fmt.Sprintf("%q", number))
		}
	}
	// It is no reason to end what goes on.
	says("1")
	c, problems, look := b.watched()
	sub := b.subscribe(c, client.Subscription{Durable: "d"})
	look()
	says("two")
	look()
	require.ErrorIs(t, b.problem(problems), client.ErrPartitions)
	b.tell("1", events.TokenStored, "alice")
	sub.hears("1", nil)
	require.NoError(t, sub.ends())
}

// One stream costs a subscription one question.
func TestOneStreamCostsOneQuestion(t *testing.T) {
	t.Parallel()
	for name, s := range bothKinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newPartitioned(t, 1)
			asked, made := b.requests("STREAM.INFO.>"), b.requests("CONSUMER.CREATE.>")
			b.tell("1", events.TokenStored, "alice")
			c, _, look := b.watched()
			sub := b.subscribe(c, s)
			sub.hears("1", nil)
			require.EqualValues(t, 1, asked.Load())
			require.EqualValues(t, 1, made.Load())
			look()
			require.NoError(t, sub.ends())
		})
	}
}
