package engines_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

const patience = 30 * time.Second

func jetStream(t testing.TB, url string, opts ...nats.Option) jetstream.JetStream {
	t.Helper()
	opts = append(opts, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.Timeout(patience))
	nc, err := nats.Connect(url, opts...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return js
}

// refreshes makes a stream of schedules and of the messages that they become, and a consumer of the latter.
func refreshes(t testing.TB, js jetstream.JetStream) jetstream.Consumer {
	t.Helper()
	s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name:              "REFRESH",
		Subjects:          []string{"refresh.schedule.*", "refresh.due"},
		Retention:         jetstream.WorkQueuePolicy,
		AllowMsgSchedules: true,
	})
	require.NoError(t, err)
	c, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{
		Durable:       "due",
		FilterSubject: "refresh.due",
		AckPolicy:     jetstream.AckExplicitPolicy,
	})
	require.NoError(t, err)
	return c
}

func schedule(t testing.TB, js jetstream.JetStream, grant string, at time.Time) {
	t.Helper()
	m := nats.NewMsg("refresh.schedule." + grant)
	m.Header.Set("Nats-Schedule", "@at "+at.UTC().Format(time.RFC3339Nano))
	m.Header.Set("Nats-Schedule-Target", "refresh.due")
	m.Data = []byte(grant)
	_, err := js.PublishMsg(t.Context(), m)
	require.NoError(t, err)
}

func receive(t testing.TB, c jetstream.Consumer) string {
	t.Helper()
	m, err := c.Next(jetstream.FetchMaxWait(patience))
	require.NoError(t, err)
	require.NoError(t, m.DoubleAck(t.Context()))
	return string(m.Data())
}

func TestNATSScheduleSurvivesARestart(t *testing.T) {
	for _, key := range []string{"", "at rest"} {
		t.Run("key "+key, func(t *testing.T) {
			b := enginestest.NATSWith(t, engines.NATSOptions{Key: key})
			js := jetStream(t, b.URL())
			refreshes(t, js)
			schedule(t, js, "overdue", time.Now().Add(100*time.Millisecond))
			schedule(t, js, "later", time.Now().Add(time.Hour))

			before := b.URL()
			b.Restart()
			require.Equal(t, before, b.URL())

			js = jetStream(t, b.URL())
			due, err := js.Consumer(t.Context(), "REFRESH", "due")
			require.NoError(t, err)
			require.Equal(t, "overdue", receive(t, due))
			s, err := js.Stream(t.Context(), "REFRESH")
			require.NoError(t, err)
			left, err := s.GetLastMsgForSubject(t.Context(), "refresh.schedule.later")
			require.NoError(t, err)
			require.Equal(t, "later", string(left.Data))
		})
	}
}

func TestNATSStoresNothingInTheClearGivenAKey(t *testing.T) {
	const plain = "body-that-must-not-be-found"
	found := func(key string) bool {
		dir := t.TempDir()
		b := enginestest.NATSWith(t, engines.NATSOptions{Dir: dir, Key: key})
		js := jetStream(t, b.URL())
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
		require.NoError(t, err)
		_, err = js.Publish(t.Context(), "s", []byte(plain))
		require.NoError(t, err)
		b.Stop()
		return onDisk(t, dir, plain)
	}
	require.True(t, found(""), "the search itself works")
	require.False(t, found("at rest"))
}

func onDisk(t testing.TB, dir, text string) (found bool) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		found = found || strings.Contains(string(b), text)
		return err
	}))
	return found
}

func TestNATSWithAnotherKeyStartsWithoutItsStreams(t *testing.T) {
	dir := t.TempDir()
	b := enginestest.NATSWith(t, engines.NATSOptions{Dir: dir, Key: "one"})
	refreshes(t, jetStream(t, b.URL()))
	b.Stop()

	other := enginestest.NATSWith(t, engines.NATSOptions{Dir: dir, Key: "another"})
	_, err := jetStream(t, other.URL()).Stream(t.Context(), "REFRESH")
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
}

func TestNATSWiped(t *testing.T) {
	dir := t.TempDir()
	b := enginestest.NATSWith(t, engines.NATSOptions{Dir: dir})
	refreshes(t, jetStream(t, b.URL()))

	b.Wipe()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
	_, err = nats.Connect(b.URL())
	require.ErrorIs(t, err, nats.ErrNoServers)

	b.Restart()
	_, err = jetStream(t, b.URL()).Stream(t.Context(), "REFRESH")
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
}

func TestNATSStopsWhenStopped(t *testing.T) {
	b := enginestest.NATSWith(t, engines.NATSOptions{})
	b.Stop()
	b.Stop()
	require.Nil(t, b.Embedded().Server())
}

func TestNATSRefusesMoreThanItMayStore(t *testing.T) {
	b := enginestest.NATSWith(t, engines.NATSOptions{MaxStore: 64 << 10})
	js := jetStream(t, b.URL())
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)

	for range 100 {
		if _, err = js.Publish(t.Context(), "s", make([]byte, 4<<10)); err != nil {
			break
		}
	}
	var refused *jetstream.APIError
	require.ErrorAs(t, err, &refused)
	require.EqualValues(t, server.JSInsufficientResourcesErr, refused.ErrorCode)
}

func TestNATSTakesAccountsFromConfigure(t *testing.T) {
	b := enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) {
		o.Users = []*server.User{{Username: "worker", Password: "pw", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: []string{"refresh.>"}},
		}}}
	}})
	for range 2 {
		_, err := nats.Connect(b.URL())
		require.ErrorIs(t, err, nats.ErrAuthorization)
		nc, err := nats.Connect(b.URL(), nats.UserInfo("worker", "pw"))
		require.NoError(t, err)
		nc.Close()
		b.Restart() // the same rules hold after it
	}
}

func TestNATSLogsWhereTold(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nats.log")
	enginestest.NATSWith(t, engines.NATSOptions{LogFile: file}).Stop()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(b), "Server is ready")

	log := &natsLog{}
	enginestest.NATSWith(t, engines.NATSOptions{Logger: log}).Stop()
	require.Contains(t, log.String(), "Server is ready")
}

func TestNATSReportsWhyItDoesNotStart(t *testing.T) {
	_, err := engines.StartNATS(engines.NATSOptions{})
	require.ErrorContains(t, err, "no directory")

	taken := enginestest.NATSWith(t, engines.NATSOptions{}).Embedded()
	_, err = engines.StartNATS(engines.NATSOptions{Dir: t.TempDir(), Port: taken.Port()})
	require.ErrorContains(t, err, "address already in use")

	_, err = engines.StartNATS(engines.NATSOptions{Dir: t.TempDir(), Configure: func(o *server.Options) {
		o.MaxPayload, o.MaxPending = 2, 1
	}})
	require.ErrorContains(t, err, "starting NATS")
}

func TestClusterAcceptsReplicatedMessagesWithOneServerStopped(t *testing.T) {
	c, err := engines.StartCluster(3, engines.NATSOptions{Dir: t.TempDir(), Key: "at rest"})
	require.NoError(t, err)
	t.Cleanup(c.Stop)
	js := jetStream(t, c.URL())
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "S", Subjects: []string{"s"}, Replicas: 3, Retention: jetstream.WorkQueuePolicy,
	})
	require.NoError(t, err)

	publish := func(text string) {
		t.Helper()
		require.Eventually(t, func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := js.Publish(ctx, "s", []byte(text), jetstream.WithMsgID(text))
			return err == nil
		}, patience, 20*time.Millisecond)
	}
	publish("with all")

	leader := c.Node(slices.IndexFunc([]int{0, 1, 2}, func(i int) bool {
		return c.Node(i).Server().JetStreamIsStreamLeader("$G", "S")
	}))
	leader.Stop()
	publish("without the leader")
	require.NoError(t, leader.Restart())
	require.Eventually(t, func() bool { return leader.Server().JetStreamIsStreamCurrent("$G", "S") },
		patience, 20*time.Millisecond, "the restarted server catches up")

	s, err := js.Stream(t.Context(), "S")
	require.NoError(t, err)
	require.EqualValues(t, 2, s.CachedInfo().State.Msgs)
}

func TestClusterNeedsAMajority(t *testing.T) {
	for _, n := range []int{0, 1, 2, 4} {
		_, err := engines.StartCluster(n, engines.NATSOptions{Dir: t.TempDir()})
		require.ErrorContains(t, err, "cannot outvote")
	}
	_, err := engines.StartCluster(3, engines.NATSOptions{})
	require.ErrorContains(t, err, "no directory")
}

func TestNATSReloadsCredentials(t *testing.T) {
	password := "old"
	n, err := engines.StartNATS(engines.NATSOptions{Dir: t.TempDir(), Configure: func(o *server.Options) {
		o.Users = []*server.User{{Username: "worker", Password: password}, {Username: "other", Password: "pw"}}
	}})
	require.NoError(t, err)
	t.Cleanup(n.Stop)
	gone := make(chan struct{}, 1)
	worker, err := nats.Connect(n.URL(), nats.UserInfo("worker", "old"), nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { gone <- struct{}{} }))
	require.NoError(t, err)
	defer worker.Close()
	other, err := nats.Connect(n.URL(), nats.UserInfo("other", "pw"))
	require.NoError(t, err)
	defer other.Close()

	password = "new"
	require.NoError(t, n.Reload())
	select {
	case <-gone:
	case <-time.After(patience):
		t.Fatal("a client with the old password is still connected")
	}
	require.NoError(t, other.FlushTimeout(patience))
	_, err = nats.Connect(n.URL(), nats.UserInfo("worker", "old"))
	require.ErrorIs(t, err, nats.ErrAuthorization)
	again, err := nats.Connect(n.URL(), nats.UserInfo("worker", "new"))
	require.NoError(t, err)
	again.Close()

	n.Stop()
	require.Error(t, n.Reload(), "a stopped server has nothing to reload")
}
