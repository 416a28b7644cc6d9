package tokens

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// link connects a client that reconnects as fast as it can.
func link(t *testing.T, url string, more ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(10 * time.Millisecond)}, more...)...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// listen has a shelf hear of changes on a connection.
func (s *shelf) listen(nc *nats.Conn) (stop func()) {
	s.t.Helper()
	stop = sync.OnceFunc(s.watchChanges(nc, events.Subjects{}))
	s.t.Cleanup(stop)
	return stop
}

// tell tells of a user's change, so that it has arrived wherever somebody hears of it.
func tell(t *testing.T, from *nats.Conn, user string, to ...*nats.Conn) {
	t.Helper()
	require.NoError(t, from.Publish(events.Subjects{}.Changed(user), nil))
	require.NoError(t, from.Flush()) // the server has passed it on
	for _, nc := range to {
		require.NoError(t, nc.Flush()) // what was passed on has arrived
	}
}

func (s *shelf) entryOf(user string) *kept {
	k, _ := s.users.Peek(user)
	return k
}

func TestEveryCacheHearsOfTheUsersThatItKeeps(t *testing.T) {
	url := enginestest.NATS(t).URL()
	one, two, other := link(t, url), link(t, url), link(t, url)
	a, b := newShelf(t, 10, time.Hour), newShelf(t, 10, time.Hour)
	a.listen(one)
	stop := b.listen(two)
	for _, s := range []*shelf{a, b} {
		require.True(t, s.get("a.b"))
		require.True(t, s.get("c"))
		require.False(t, s.get("a.b"))
	}
	// Who was told of a change before he asks gets what is new.
	for range 100 {
		tell(t, other, "a.b", one, two)
		for _, s := range []*shelf{a, b} {
			require.True(t, s.get("a.b"))
			require.False(t, s.get("a.b"))
			require.False(t, s.get("c"), "only this user has changed")
		}
	}
	// Without requests too.
	tell(t, other, "c", one)
	require.Eventually(t, func() bool { return a.entryOf("c") == nil }, patience, time.Millisecond)

	stop()
	require.Zero(t, two.NumSubscriptions())
	require.True(t, b.get("a.b"))
	require.True(t, b.get("a.b"), "nothing is kept that nobody hears of")
}

func TestNothingIsDeliveredAboutUsersWhomNobodyKeeps(t *testing.T) {
	url := enginestest.NATS(t).URL()
	nc, other := link(t, url), link(t, url)
	s := newShelf(t, 10, time.Hour)
	s.listen(nc)
	s.get("kept")
	before := nc.Stats().InMsgs
	for _, kind := range events.LifecycleKinds {
		require.NoError(t, other.Publish(events.Subjects{}.Lifecycle(kind, "kept"), nil))
		require.NoError(t, other.Publish(events.Subjects{}.Lifecycle(kind, "somebody"), nil))
	}
	tell(t, other, "somebody", nc)
	require.Equal(t, before, nc.Stats().InMsgs)
	tell(t, other, "kept", nc)
	require.Equal(t, before+1, nc.Stats().InMsgs)
	require.True(t, s.get("kept"))
}

func TestNobodyIsHeardForNothing(t *testing.T) {
	url := enginestest.NATS(t).URL()
	nc, other := link(t, url), link(t, url)
	s := newShelf(t, 2, time.Hour)
	s.listen(nc)
	heard := func(n int, why string) {
		t.Helper()
		require.Equal(t, n, nc.NumSubscriptions(), why)
	}
	for _, user := range []string{"a", "b", "c", "d"} {
		s.get(user)
	}
	heard(2, "there is room for two")
	s.get("unknown")
	heard(1, "a user without grants, for whom another made room")
	s.err = errTest
	_, err := s.byUser(t.Context(), "e")
	require.ErrorIs(t, err, errTest)
	s.err = nil
	heard(1, "who could not be read")
	tell(t, other, "d", nc)
	s.catchUp()
	heard(0, "who has changed")
	s.get("a")
	s.invalidate("a")
	heard(0, "who was dropped")
	s.get("a")
	s.clear()
	heard(0, "after a break")

	// Another reading needs no other subscription.
	s.get("a")
	k := s.entryOf("a")
	for range 20 {
		s.now = s.now.Add(time.Hour)
		require.True(t, s.get("a"))
		s.dropIdle()
		require.Same(t, k, s.entryOf("a"))
	}
	s.get("b")
	s.now = s.now.Add(idleAges*time.Hour - 1)
	s.dropIdle()
	heard(2, "both were asked for lately")
	s.get("b")
	s.now = s.now.Add(1)
	s.dropIdle()
	heard(1, "for whom nobody has asked")
	require.NotNil(t, s.entryOf("b"))
}

func TestAChangeDuringTheReadIsHeard(t *testing.T) {
	url := enginestest.NATS(t).URL()
	nc, other := link(t, url), link(t, url)
	s := newShelf(t, 10, time.Hour)
	s.listen(nc)
	s.meanwhile = func() { tell(t, other, "a", nc) }
	require.True(t, s.get("a"))
	require.True(t, s.get("a"))
	s.meanwhile = nil
	require.True(t, s.get("a"))
	require.False(t, s.get("a"))
	s.now = s.now.Add(time.Hour) // also where it has been heard before
	s.meanwhile = func() { tell(t, other, "a", nc) }
	require.True(t, s.get("a"))
	s.meanwhile = nil
	require.True(t, s.get("a"))
}

func TestTheCacheForgetsInBreaks(t *testing.T) {
	broker := enginestest.NATS(t)
	broker.Embedded() // or skip
	nc, other := link(t, broker.URL()), link(t, broker.URL())
	s := newShelf(t, 10, time.Hour)
	s.listen(nc)
	forgotten := func(why string) {
		t.Helper()
		require.Eventually(t, func() bool { return s.entryOf("a") == nil }, patience, time.Millisecond, why)
	}
	s.get("a")
	broker.Stop()
	forgotten("a break")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := s.byUser(ctx, "a")
	require.NoError(t, err)
	require.Nil(t, s.entryOf("a"), "the server has not said that it is heard")
	s.users.Add("a", &kept{})
	broker.Restart()
	forgotten("the end of a break: what happened in it was not heard")

	require.NoError(t, nc.FlushTimeout(patience))
	require.NoError(t, other.FlushTimeout(patience))
	require.Eventually(t, func() bool { s.get("a"); return !s.get("a") }, patience, time.Millisecond)
	tell(t, other, "a", nc)
	require.True(t, s.get("a"))
	nc.Close()
	require.True(t, s.get("b"))
	require.True(t, s.get("b"), "nothing is heard any more")
}

var errTest = fmt.Errorf("away")

// refusals counts the errors of a connection.
func refusals(n *atomic.Int64) nats.Option {
	return nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) { n.Add(1) })
}

func TestWithoutPermissionNothingIsKept(t *testing.T) {
	var permitted atomic.Bool
	broker := enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "worker", Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}}}},
			{Username: "other"},
		}
		if permitted.Load() {
			o.Users[0].Permissions.Subscribe.Allow = []string{"_INBOX.>", "latchkey.changed.*"}
		}
	}})
	broker.Embedded() // or skip
	var refused atomic.Int64
	nc, other := link(t, broker.URL(), nats.UserInfo("worker", ""), refusals(&refused)), link(t, broker.URL(), nats.UserInfo("other", ""))
	s := newShelf(t, 10, time.Hour)
	s.listen(nc)
	for n := range int64(3) {
		s.get("a")
		require.Eventually(t, func() bool { return refused.Load() == n+1 }, patience, time.Millisecond)
		require.Zero(t, nc.NumSubscriptions())
		s.now = s.now.Add(deafPause - 1)
		for range 3 {
			require.True(t, s.get("a"))
			require.True(t, s.get("b"))
		}
		require.NoError(t, nc.Flush())
		require.Equal(t, n+1, refused.Load(), "for a while nobody tries again")
		s.now = s.now.Add(1)
	}
	permitted.Store(true)
	require.NoError(t, broker.Embedded().Reload())
	require.Eventually(t, func() bool { s.now = s.now.Add(deafPause); s.get("a"); return !s.get("a") }, patience, time.Millisecond)
	require.True(t, s.get("b"), "everybody is heard again")
	require.False(t, s.get("b"))
	tell(t, other, "a", nc)
	require.True(t, s.get("a"))

	// A permission that is taken away ends what is heard.
	permitted.Store(false)
	require.NoError(t, broker.Embedded().Reload())
	require.Eventually(t, func() bool { return s.users.Len() == 0 }, patience, time.Millisecond)
	require.True(t, s.get("a"))
	require.True(t, s.get("a"))
}

func TestALimitOfSubscriptionsMakesTheCacheSmaller(t *testing.T) {
	const limit = 20
	broker := enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) { o.MaxSubs = limit }})
	broker.Embedded() // or skip
	var refused atomic.Int64
	told := make(chan struct{}, 1)
	nc, other := link(t, broker.URL(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrSlowConsumer) {
			told <- struct{}{}
			return
		}
		refused.Add(1)
	})), link(t, broker.URL())
	slow, err := nc.SubscribeSync("slow")
	require.NoError(t, err)
	require.NoError(t, slow.SetPendingLimits(1, -1))
	s := newShelf(t, 1000, time.Hour)
	s.listen(nc)
	user := func(i int) string { return fmt.Sprint("user-", i) }
	for i := 0; refused.Load() == 0; i++ {
		s.get(user(i))
	}
	// The library tells of one error after the other, also of those that come late.
	for range 3 {
		require.NoError(t, other.Publish("slow", nil))
	}
	select {
	case <-told:
	case <-time.After(patience):
		t.Fatal("the refusals are not told")
	}
	require.Zero(t, s.users.Len(), "nobody knows who was refused")
	require.True(t, s.get("a"))
	require.True(t, s.get("a"))

	s.now = s.now.Add(deafPause)
	for i := range 10 * limit {
		s.get(user(i))
	}
	require.NoError(t, nc.Flush())
	require.Greater(t, s.users.Len(), limit/2)
	require.Less(t, s.users.Len(), limit, "others find room")
	for _, user := range s.users.Keys() {
		require.False(t, s.get(user))
		tell(t, other, user, nc)
		require.True(t, s.get(user), "%s is heard", user)
	}
}

// Who is refused alone, as the one who tries is, does not show how much room there is. Each
// refusal that comes late was one of those that found none.
func TestTheRoomIsWhatNATSHadRoomFor(t *testing.T) {
	s := newShelf(t, 100, time.Hour)
	s.listen(link(t, enginestest.NATS(t).URL()))
	kept := func() int {
		s.now = s.now.Add(deafPause)
		for i := range 100 {
			s.get(fmt.Sprint(i))
		}
		return s.users.Len()
	}
	for range 3 {
		s.get("a")
		s.onError(nats.ErrMaxSubscriptionsExceeded)
		require.Zero(t, s.users.Len())
		s.now = s.now.Add(deafPause)
	}
	require.Equal(t, 100, kept())
	for range 20 {
		s.onError(nats.ErrMaxSubscriptionsExceeded)
	}
	require.Equal(t, 60, kept(), "three quarters of 80")
}

// Whoever asks after an event gets what is new, or newer, whichever worker answers,
// whoever asks meanwhile, and however often users are dropped and kept again.
func TestWhoHeardOfAChangeGetsWhatIsNew(t *testing.T) {
	url := enginestest.NATS(t).URL()
	const users, rounds = 12, 150
	var stored [users]atomic.Int64
	subject := func(i int) string { return fmt.Sprint("ask.", i) }
	for range 2 { // workers
		nc := link(t, url)
		c := newGrantCache(users/2, time.Hour, time.Now, func(_ context.Context, user string) ([]*store.Grant, error) {
			var i int
			_, err := fmt.Sscan(strings.TrimPrefix(user, "user-"), &i)
			return []*store.Grant{{Version: stored[i].Load()}}, err
		})
		stop := c.watchChanges(nc, events.Subjects{})
		t.Cleanup(stop)
		_, err := nc.QueueSubscribe("ask.*", "workers", func(m *nats.Msg) {
			c.catchUp()
			go func() {
				r, err := c.byUser(t.Context(), "user-"+strings.TrimPrefix(m.Subject, "ask."))
				if err == nil {
					_ = m.Respond(fmt.Append(nil, r.grants[0].Version))
				}
			}()
		})
		require.NoError(t, err)
		require.NoError(t, nc.Flush())
	}
	var wg sync.WaitGroup
	for i := range users {
		writer, asker := link(t, url), link(t, url)
		told, err := asker.SubscribeSync(events.Subjects{}.Lifecycle(events.TokenRefreshed, fmt.Sprint("user-", i)))
		require.NoError(t, err)
		require.NoError(t, asker.Flush())
		ask := func() (version int64) {
			reply, err := asker.Request(subject(i), nil, patience)
			if err == nil {
				_, err = fmt.Sscan(string(reply.Data), &version)
			}
			if err != nil {
				t.Error(err)
			}
			return version
		}
		wg.Go(func() {
			for version := int64(1); version <= rounds; version++ {
				go func() { _, _ = asker.Request(subject(i), nil, patience) }() // may have any version
				stored[i].Store(version)
				user := fmt.Sprint("user-", i)
				_ = writer.Publish(events.Subjects{}.Changed(user), nil)
				_ = writer.Publish(events.Subjects{}.Lifecycle(events.TokenRefreshed, user), nil)
				if _, err := told.NextMsg(patience); err != nil {
					t.Error(err)
					return
				}
				for range 3 {
					if got := ask(); got < version {
						t.Errorf("version %d is given after the event of %d", got, version)
					}
				}
			}
		})
	}
	wg.Wait()
}
