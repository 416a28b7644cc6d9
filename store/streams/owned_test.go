package streams_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/options/optionstest"
	"github.com/latchkey/latchkey/store/streams"
)

// jetStreamOn connects to a server.
func jetStreamOn(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return js
}

func configOf(t *testing.T, js jetstream.JetStream, stream string) jetstream.StreamConfig {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	require.NoError(t, err)
	return s.CachedInfo().Config
}

// What an operator set stays over the start of a worker; what workers need comes back.
func TestWhatAnOperatorSetStays(t *testing.T) {
	t.Parallel()
	js := jetStreamOn(t, enginestest.NATSWith(t, engines.NATSOptions{}).URL())
	cfg := config.Default()
	subjects := cfg.NATS.Subjects()
	topology := func() *streams.Topology {
		return must(streams.New(streams.Options{JetStream: js, State: &memory{}, Config: cfg, Log: zap.NewNop()}))
	}
	_, err := topology().Ensure(t.Context())
	require.NoError(t, err)

	names := []string{
		subjects.IntegrationStream(), subjects.RefreshStream(), subjects.RecoveryStream(), subjects.LifecycleStream(),
		subjects.DeadLetterStream(), subjects.AuditStream(), subjects.CanaryStream(),
	}
	set := func(c *jetstream.StreamConfig) {
		c.Description = "ours"
		c.MaxMsgs, c.MaxBytes, c.MaxMsgSize = 1_000_000, 1<<30, 1<<20
		c.Compression = jetstream.S2Compression
		c.Metadata["team"] = "payments"
		c.Placement = &jetstream.Placement{Tags: []string{}}
		c.RePublish = &jetstream.RePublish{Source: ">", Destination: "copy." + c.Name + ".>"}
		c.Duplicates = time.Hour
		c.AllowDirect = true
	}
	before := map[string]jetstream.StreamConfig{}
	for _, name := range names {
		c := configOf(t, js, name)
		set(&c)
		if name == subjects.CanaryStream() {
			c.MaxMsgs = 1
		}
		_, err := js.UpdateStream(t.Context(), c)
		require.NoError(t, err, name)
		before[name] = configOf(t, js, name)
	}
	_, err = topology().Ensure(t.Context())
	require.NoError(t, err)
	for _, name := range names {
		require.Equal(t, before[name], configOf(t, js, name))
	}
	found, err := topology().Inspect(t.Context())
	require.NoError(t, err)
	for _, f := range found {
		require.Empty(t, f.Differs, f.Name)
		require.Contains(t, f.Kept, "compression S2", f.Name)
		require.Contains(t, f.Kept, "max_bytes 1073741824", f.Name)
	}

	// What loses messages, or what the configuration says, does not stay.
	loses := map[string]func(*jetstream.StreamConfig){
		"max_age":                 func(c *jetstream.StreamConfig) { c.MaxAge = 2 * time.Hour },
		"discard":                 func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld },
		"max_msgs_per_subject":    func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 7 },
		"discard_new_per_subject": func(c *jetstream.StreamConfig) { c.DiscardNewPerSubject, c.MaxMsgsPerSubject = true, 7 },
		"no_ack":                  func(c *jetstream.StreamConfig) { c.NoAck = true },
		"duplicate_window":        func(c *jetstream.StreamConfig) { c.Duplicates = time.Second },
		"subjects":                func(c *jetstream.StreamConfig) { c.Subjects = append(slices.Clone(c.Subjects), "latchkey.more") },
	}
	for setting, change := range loses {
		c := before[subjects.RecoveryStream()]
		change(&c)
		_, err := js.UpdateStream(t.Context(), c)
		require.NoError(t, err, setting)
		found, err := topology().Inspect(t.Context())
		require.NoError(t, err)
		i := slices.IndexFunc(found, func(f streams.Inspection) bool { return f.Name == subjects.RecoveryStream() })
		require.True(t, found[i].Unfit())
		require.Contains(t, found[i].Text(), setting+" is ")
		_, err = topology().Ensure(t.Context())
		require.NoError(t, err, setting)
		after := configOf(t, js, subjects.RecoveryStream())
		if setting == "duplicate_window" {
			require.Equal(t, 10*time.Minute, after.Duplicates)
			after.Duplicates = time.Hour
		}
		if setting == "max_msgs_per_subject" {
			require.LessOrEqual(t, after.MaxMsgsPerSubject, int64(0))
		}
		require.Equal(t, before[subjects.RecoveryStream()], after, setting)
	}
	c := before[subjects.LifecycleStream()]
	c.Discard, c.DiscardNewPerSubject, c.MaxMsgsPerSubject = jetstream.DiscardNew, true, 7
	_, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
	_, err = topology().Ensure(t.Context())
	require.NoError(t, err)
	require.Equal(t, jetstream.DiscardOld, configOf(t, js, subjects.LifecycleStream()).Discard, "events hold up no worker")

	cfg.Retention.Events, cfg.NATS.Replicas = time.Minute, 3
	_, err = topology().Ensure(t.Context())
	require.NoError(t, err)
	require.Equal(t, time.Minute, configOf(t, js, subjects.LifecycleStream()).MaxAge)
	require.Equal(t, 1, configOf(t, js, subjects.LifecycleStream()).Replicas, "replicas are the operator's")
}

// What NATS does not change makes the start fail, with the stream and the setting.
func TestWhatCanNotBeChangedIsNamed(t *testing.T) {
	t.Parallel()
	js := jetStreamOn(t, enginestest.NATSWith(t, engines.NATSOptions{}).URL())
	cfg := config.Default()
	subjects := cfg.NATS.Subjects()
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: subjects.RecoveryStream(), Subjects: []string{subjects.RecoveryAll()}, Storage: jetstream.MemoryStorage})
	require.NoError(t, err)
	_, err = must(streams.New(streams.Options{JetStream: js, State: &memory{}, Config: cfg, Log: zap.NewNop()})).Ensure(t.Context())
	require.ErrorContains(t, err, subjects.RecoveryStream())
	require.ErrorContains(t, err, "storage is Memory, not File")
}

// What an operator set on a consumer stays; what workers need comes back.
func TestWhatAnOperatorSetOnAConsumerStays(t *testing.T) {
	t.Parallel()
	js := jetStreamOn(t, enginestest.NATSWith(t, engines.NATSOptions{}).URL())
	cfg := config.Default()
	subjects := cfg.NATS.Subjects()
	topology := must(streams.New(streams.Options{JetStream: js, State: &memory{}, Config: cfg, Log: zap.NewNop()}))
	_, err := topology.Ensure(t.Context())
	require.NoError(t, err)
	made, err := topology.Consumer(t.Context(), subjects.RefreshStream(), subjects.RefreshDue())
	require.NoError(t, err)
	c := made.CachedInfo().Config
	c.Description, c.Metadata["team"] = "ours", "payments"
	c.AckWait, c.MaxDeliver, c.MaxAckPending = time.Second, 3, 10
	_, err = js.UpdateConsumer(t.Context(), subjects.RefreshStream(), c)
	require.NoError(t, err)

	cfg.NATS.ManageStreams = false
	_, err = must(streams.New(streams.Options{JetStream: js, State: &memory{}, Config: cfg, Log: zap.NewNop()})).Consumer(t.Context(), subjects.RefreshStream(), subjects.RefreshDue())
	require.ErrorIs(t, err, streams.ErrUnfit)
	require.ErrorContains(t, err, "ack_wait is 1s, not 30s, max_deliver is 3, not -1, max_ack_pending is 10, not -1")

	again, err := topology.Consumer(t.Context(), subjects.RefreshStream(), subjects.RefreshDue())
	require.NoError(t, err)
	is := again.CachedInfo().Config
	require.Equal(t, []any{30 * time.Second, -1, -1}, []any{is.AckWait, is.MaxDeliver, is.MaxAckPending})
	require.Equal(t, []string{"ours", "payments"}, []string{is.Description, is.Metadata["team"]})
	_, err = must(streams.New(streams.Options{JetStream: js, State: &memory{}, Config: cfg, Log: zap.NewNop()})).Consumer(t.Context(), subjects.RefreshStream(), subjects.RefreshDue())
	require.NoError(t, err)
}

// withRoom connects to an account that may store so many bytes.
func withRoom(t *testing.T, most int64) jetstream.JetStream {
	t.Helper()
	const password = "a-password"
	broker := enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) {
		small := server.NewAccount("small")
		o.Accounts = []*server.Account{small}
		o.Users = []*server.User{{Username: "small", Password: password, Account: small}}
	}})
	account, err := broker.Embedded().Server().LookupAccount("small")
	require.NoError(t, err)
	require.NoError(t, account.EnableJetStream(map[string]server.JetStreamAccountLimits{"": {MaxStore: most, MaxMemory: -1, MaxStreams: -1, MaxConsumers: -1}}, nil))
	return jetStreamOn(t, strings.Replace(broker.URL(), "nats://", "nats://small:"+password+"@", 1))
}

// The stream of events leaves room for the answers of Mesh that wait for the database,
// however many events there are and however little the account may store.
func TestEventsLeaveRoomForAnswers(t *testing.T) {
	t.Parallel()
	const most = 32 << 20
	js := withRoom(t, most)
	cfg := config.Default()
	subjects := cfg.NATS.Subjects()
	core, logs := observer.New(zap.WarnLevel)
	topology := must(streams.New(streams.Options{JetStream: js, State: &memory{}, Config: cfg, Log: zap.New(core)}))
	_, err := topology.Ensure(t.Context())
	require.NoError(t, err)
	require.Empty(t, logs.All())
	require.EqualValues(t, most/2, configOf(t, js, subjects.LifecycleStream()).MaxBytes)
	for range 50 {
		_, err := js.Publish(t.Context(), subjects.Lifecycle("token.stored", "u"), make([]byte, 1_000_000))
		require.NoError(t, err)
	}
	for range 10 {
		_, err = js.Publish(t.Context(), subjects.Recovery("g"), make([]byte, 1_000_000))
		require.NoError(t, err)
	}

	// Events that took more before there was a limit are kept, and the operator decides.
	c := configOf(t, js, subjects.LifecycleStream())
	c.MaxBytes = -1
	_, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
	for range 5 {
		_, err := js.Publish(t.Context(), subjects.Lifecycle("token.stored", "u"), make([]byte, 1_000_000))
		require.NoError(t, err)
	}
	_, err = topology.Ensure(t.Context())
	require.NoError(t, err)
	require.Greater(t, configOf(t, js, subjects.LifecycleStream()).MaxBytes, int64(most/2))
	require.Equal(t, 1, logs.FilterMessageSnippet("more than half").Len())
}

// An existing stream gets a limit that costs it no event. Where NATS can't reserve any,
// workers start all the same.
func TestALimitForEventsOfBefore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		store int64 // that the server has
		taken int64 // that another stream has reserved
		most  int64 // for events
	}{
		"room":        {0, 0, 8 << 30},
		"little room": {1 << 30, 0, 512 << 20},
		"none":        {64 << 20, 60 << 20, -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js := jetStreamOn(t, enginestest.NATSWith(t, engines.NATSOptions{MaxStore: c.store}).URL())
			cfg := config.Default()
			subjects := cfg.NATS.Subjects()
			if c.taken > 0 {
				_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"other"}, MaxBytes: c.taken})
				require.NoError(t, err)
			}
			stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: subjects.LifecycleStream(), Subjects: []string{subjects.LifecycleAll("token.stored")}, MaxAge: cfg.Retention.Events})
			require.NoError(t, err)
			for range 5 {
				_, err := js.Publish(t.Context(), subjects.Lifecycle("token.stored", "u"), make([]byte, 1_000_000))
				require.NoError(t, err)
			}
			_, err = must(streams.New(streams.Options{JetStream: js, State: &memory{}, Config: cfg, Log: zap.NewNop()})).Ensure(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.most, configOf(t, js, subjects.LifecycleStream()).MaxBytes)
			info, err := stream.Info(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, 5, info.State.Msgs)
		})
	}
}

// Streams that somebody else keeps are verified and never changed.
func TestStreamsThatSomebodyElseKeeps(t *testing.T) {
	t.Parallel()
	js := jetStreamOn(t, enginestest.NATSWith(t, engines.NATSOptions{}).URL())
	cfg := config.Default()
	subjects := cfg.NATS.Subjects()
	cfg.NATS.ManageStreams = false
	core, logs := observer.New(zap.WarnLevel)
	reach := &without{JetStream: js}
	theirs := must(streams.New(streams.Options{JetStream: reach, State: &memory{}, Config: cfg, Log: zap.New(core)}))
	_, err := theirs.Ensure(t.Context())
	require.ErrorIs(t, err, streams.ErrUnfit)
	for _, name := range []string{subjects.IntegrationStream(), subjects.RefreshStream(), subjects.RecoveryStream(), subjects.LifecycleStream(), subjects.DeadLetterStream(), subjects.AuditStream()} {
		require.ErrorContains(t, err, "stream "+name+" is missing")
	}
	require.NotContains(t, err.Error(), subjects.CanaryStream())
	names := 0
	for range js.StreamNames(t.Context()).Name() {
		names++
	}
	require.Zero(t, names, "it makes none")

	managed := config.Default()
	first, err := must(streams.New(streams.Options{JetStream: js, State: &memory{}, Config: managed, Log: zap.NewNop()})).Ensure(t.Context())
	require.NoError(t, err)
	require.NoError(t, js.DeleteStream(t.Context(), subjects.CanaryStream()))
	identities, err := theirs.Ensure(t.Context())
	require.NoError(t, err)
	require.Equal(t, first, identities)

	// A wish is none of its business; what it needs it names, at every pass.
	c := configOf(t, js, subjects.LifecycleStream())
	c.MaxAge, c.MaxBytes = time.Hour, -1
	_, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
	for range 3 {
		_, err = theirs.Identities(t.Context())
		require.NoError(t, err)
	}
	warned := logs.FilterMessage("a stream that you manage is not as configured").All()
	require.Len(t, warned, 1, "said once")
	require.Contains(t, warned[0].ContextMap()["differs"], "stream "+subjects.LifecycleStream()+": max_age")

	// One that does not answer ends no worker, and the log names it.
	reach.stream = subjects.IntegrationStream()
	_, err = theirs.Identities(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, logs.FilterMessage("a stream is missing; the next pass checks again").Len())
	reach.stream = ""
	c = configOf(t, js, subjects.RecoveryStream())
	c.MaxAge = time.Hour
	_, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, js.DeleteStream(t.Context(), subjects.DeadLetterStream()))
	_, err = theirs.Identities(t.Context())
	require.ErrorIs(t, err, streams.ErrUnfit)
	require.ErrorContains(t, err, subjects.RecoveryStream()+": max_age is 1h0m0s, not 0s")
	require.ErrorContains(t, err, subjects.DeadLetterStream()+" is missing")
	require.Equal(t, time.Hour, configOf(t, js, subjects.RecoveryStream()).MaxAge, "nothing was changed")
	require.Equal(t, time.Hour, configOf(t, js, subjects.LifecycleStream()).MaxAge, "nothing was changed")
}

// Prefixes that differ only in case have streams of the same names.
func TestPrefixesThatDifferOnlyInCase(t *testing.T) {
	t.Parallel()
	js := jetStreamOn(t, enginestest.NATSWith(t, engines.NATSOptions{}).URL())
	var database *memory // of the last one
	with := func(prefix string, adopt bool) *streams.Topology {
		cfg := config.Default()
		cfg.NATS.Prefix, cfg.NATS.AdoptStreams = prefix, adopt
		database = &memory{}
		return must(streams.New(streams.Options{JetStream: js, State: database, Config: cfg, Log: zap.NewNop()}))
	}
	_, err := with("eu", false).Ensure(t.Context())
	require.NoError(t, err)
	before := configOf(t, js, "EU_LATCHKEY_REFRESH")
	for _, adopt := range []bool{false, true} {
		_, err = with("EU", adopt).Ensure(t.Context())
		require.ErrorIs(t, err, streams.ErrOtherInstallation)
		require.ErrorContains(t, err, "differ only in case")
		require.Empty(t, database.claimed, "with another prefix it can start")
	}
	_, err = with("EU", false).CheckInstallation(t.Context())
	require.ErrorContains(t, err, "differ only in case")
	require.Equal(t, before, configOf(t, js, "EU_LATCHKEY_REFRESH"))
	_, err = with("us", false).Ensure(t.Context())
	require.NoError(t, err)
}

// must returns what a constructor has made of complete options.
func must[T any](made T, err error) T {
	if err != nil {
		panic(err)
	}
	return made
}

func TestEveryRequiredOptionIsNamed(t *testing.T) {
	js := struct{ jetstream.JetStream }{}
	optionstest.Required(t, streams.New, streams.Options{JetStream: &js, Config: config.Default(), Log: zap.NewNop()}, "JetStream", "Config", "Log")
}
