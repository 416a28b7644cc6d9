package streams_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/direct"
	"github.com/latchkey/latchkey/store/streams"
)

// partitioned returns the configuration and the topology of an installation with so many partitions.
func partitioned(js jetstream.JetStream, m *memory, prefix string, partitions int, log *zap.Logger) (config.Config, *streams.Topology) {
	cfg := config.Default()
	cfg.NATS.Prefix, cfg.NATS.Partitions = prefix, partitions
	return cfg, must(streams.New(streams.Options{JetStream: js, State: m, Config: cfg, Log: log}))
}

// publishEvent publishes as a worker does.
func publishEvent(t *testing.T, js jetstream.JetStream, s events.Subjects, subject, id string) error {
	t.Helper()
	msg := nats.NewMsg(s.PublishedLifecycle(subject))
	msg.Data = []byte(id)
	msg.Header.Set("Content-Type", "application/cloudevents+json")
	_, err := js.PublishMsg(t.Context(), msg, jetstream.WithMsgID(id), jetstream.WithRetryAttempts(0))
	return err
}

// held returns the ids of the events that streams hold under a subject, by stream.
func held(t *testing.T, js jetstream.JetStream, s events.Subjects, subject string) map[string][]string {
	t.Helper()
	all, err := streams.Lifecycle(t.Context(), js, s)
	require.NoError(t, err)
	found := map[string][]string{}
	for _, stream := range all {
		for m, err := range direct.Read(t.Context(), js, stream, direct.Reading{Subject: subject}) {
			require.NoError(t, err)
			found[stream.CachedInfo().Config.Name] = append(found[stream.CachedInfo().Config.Name], string(m.Data))
		}
	}
	return found
}

// Plain subscriptions, durable and ordered consumers receive each event once, under the
// subject that they know, and a user's events are in one stream.
func TestEventsInPartitionsAreWhatSubscribersKnow(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "eu"} {
		js := jetStreamOn(t, enginestest.NATSWith(t, engines.NATSOptions{}).URL())
		cfg, topology := partitioned(js, &memory{}, prefix, 3, zap.NewNop())
		s := cfg.NATS.Subjects()
		_, err := topology.Ensure(t.Context())
		require.NoError(t, err)
		again, err := topology.Inspect(t.Context())
		require.NoError(t, err)
		for _, f := range again {
			require.Empty(t, f.Differs, f.Name)
			require.Empty(t, f.Kept, f.Name)
		}
		require.Equal(t, "3", configOf(t, js, s.LifecycleStream()).Metadata[events.PartitionsKey])

		plain, err := js.Conn().SubscribeSync(s.LifecycleEvents())
		require.NoError(t, err)
		rejected, err := js.Conn().SubscribeSync(s.RejectedAll())
		require.NoError(t, err)
		var subjects []string
		publish := func(subject string, heard *nats.Subscription) {
			subjects = append(subjects, subject)
			require.NoError(t, publishEvent(t, js, s, subject, subject))
			m, err := heard.NextMsg(5 * time.Second)
			require.NoError(t, err)
			require.Equal(t, []string{subject, subject, subject, "application/cloudevents+json"},
				[]string{m.Subject, string(m.Data), m.Header.Get(nats.MsgIdHdr), m.Header.Get("Content-Type")})
		}
		for n := range 12 {
			user := fmt.Sprintf("user.%d", n)
			publish(s.Lifecycle(events.TokenStored, user), plain)
			publish(s.Lifecycle(events.TokenRefreshed, user), plain)
			publish(s.Rejected(user), rejected)
		}
		require.NoError(t, js.Conn().Flush())
		for _, sub := range []*nats.Subscription{plain, rejected} {
			waiting, _, err := sub.Pending()
			require.NoError(t, err)
			require.Zero(t, waiting, "each once")
		}

		var durable, ordered []string
		for _, p := range s.LifecyclePartitions() {
			c, err := js.CreateConsumer(t.Context(), p.Stream, jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy, FilterSubjects: []string{s.LifecycleAll(events.TokenStored), s.RejectedAll()}})
			require.NoError(t, err)
			durable = append(durable, pulled(t, c)...)
			o, err := js.OrderedConsumer(t.Context(), p.Stream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{s.LifecycleAll(events.TokenRefreshed)}})
			require.NoError(t, err)
			got := pulled(t, o)
			require.NotEmpty(t, got, p.Stream)
			ordered = append(ordered, got...)
		}
		require.ElementsMatch(t, subjects, append(durable, ordered...))

		of := held(t, js, s, s.LifecycleOf("user.1"))
		require.Len(t, of, 1)
		require.Equal(t, []string{s.Lifecycle(events.TokenStored, "user.1"), s.Lifecycle(events.TokenRefreshed, "user.1")}, slices.Collect(maps.Values(of))[0])
	}
}

// pulled returns the subjects of what waits in a consumer.
func pulled(t *testing.T, c jetstream.Consumer) (all []string) {
	t.Helper()
	batch, err := c.FetchNoWait(100)
	require.NoError(t, err)
	for m := range batch.Messages() {
		all = append(all, m.Subject())
		_ = m.Ack()
	}
	require.NoError(t, batch.Error())
	return all
}

// A change of the number to more and back loses no event and no durable consumer. What a worker of the
// other number publishes is refused, so that it stays in the outbox, or stored; never lost.
func TestAChangeOfTheNumberOfPartitions(t *testing.T) {
	t.Parallel()
	js := jetStreamOn(t, enginestest.NATSWith(t, engines.NATSOptions{}).URL())
	m := &memory{}
	core, logs := observer.New(zap.WarnLevel)
	oneCfg, one := partitioned(js, m, "", 1, zap.New(core))
	fourCfg, four := partitioned(js, m, "", 4, zap.New(core))
	s, of4 := oneCfg.NATS.Subjects(), fourCfg.NATS.Subjects()
	user := func(partition int) string {
		for n := 0; ; n++ {
			if id := fmt.Sprintf("u%d", n); of4.PartitionOf(id) == partition {
				return id
			}
		}
	}
	stored := func(n int) string { return s.Lifecycle(events.TokenStored, user(n)) }

	_, err := one.Ensure(t.Context())
	require.NoError(t, err)
	durable, err := js.CreateConsumer(t.Context(), s.LifecycleStream(), jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: s.LifecycleAll(events.TokenStored)})
	require.NoError(t, err)
	require.NoError(t, publishEvent(t, js, s, stored(0), "before"))

	_, err = four.Ensure(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"latchkey.lifecycle.0.*.*.*"}, configOf(t, js, s.LifecycleStream()).Subjects)
	require.ErrorIs(t, publishEvent(t, js, s, stored(0), "one beside four"), jetstream.ErrNoStreamResponse)
	for n := range 4 {
		require.NoError(t, publishEvent(t, js, of4, stored(n), fmt.Sprint("four ", n)))
	}
	require.Equal(t, []string{stored(0), stored(0)}, pulled(t, durable), "it still receives what is in its stream")
	require.Equal(t, map[string][]string{"LATCHKEY_LIFECYCLE": {"before", "four 0"}}, held(t, js, s, stored(0)))
	require.Equal(t, map[string][]string{"LATCHKEY_LIFECYCLE_3": {"four 3"}}, held(t, js, s, stored(3)), "found by who knows of one partition alone")

	// Both look at the streams from time to time: the last one has its own, whoever started last.
	require.Empty(t, logs.All())
	_, err = one.Identities(t.Context())
	require.NoError(t, err)
	require.NoError(t, publishEvent(t, js, s, stored(0), "one again"))
	require.ErrorIs(t, publishEvent(t, js, of4, stored(0), "four beside one"), jetstream.ErrNoStreamResponse)
	_, err = four.Identities(t.Context())
	require.NoError(t, err)
	require.NoError(t, publishEvent(t, js, of4, stored(0), "four again"))
	require.Equal(t, 2, logs.FilterMessageSnippet("can't find their way").Len())
	require.NoError(t, js.DeleteStream(t.Context(), "LATCHKEY_LIFECYCLE_2"))
	require.ErrorIs(t, publishEvent(t, js, of4, stored(2), "its stream is gone"), jetstream.ErrNoStreamResponse)
	_, err = streams.Lifecycle(t.Context(), js, of4)
	require.ErrorContains(t, err, "LATCHKEY_LIFECYCLE_2")
	_, err = four.Identities(t.Context())
	require.NoError(t, err)
	require.NoError(t, publishEvent(t, js, of4, stored(2), "its stream is gone"))

	// Back to one: the others pass on what a worker of before still gives them.
	_, err = one.Ensure(t.Context())
	require.NoError(t, err)
	c := configOf(t, js, s.LifecycleStream())
	require.Nil(t, c.RePublish)
	require.Nil(t, c.SubjectTransform)
	require.Equal(t, "4", c.Metadata[events.PartitionsKey], "the others still hold events")
	require.NoError(t, publishEvent(t, js, of4, stored(1), "four, late"))
	require.NoError(t, publishEvent(t, js, s, stored(1), "one"))
	require.Equal(t, map[string][]string{"LATCHKEY_LIFECYCLE": {"four, late", "one"}, "LATCHKEY_LIFECYCLE_1": {"four 1", "four, late"}}, held(t, js, s, stored(1)))
	for _, n := range []string{"1", "2", "3"} {
		require.NoError(t, js.DeleteStream(t.Context(), "LATCHKEY_LIFECYCLE_"+n))
	}
	require.Len(t, held(t, js, s, stored(1)), 1, "streams that were removed are missed by nobody")
	c.Metadata[events.PartitionsKey] = "1"
	_, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
	_, err = one.Ensure(t.Context())
	require.NoError(t, err)
	require.Equal(t, "1", configOf(t, js, s.LifecycleStream()).Metadata[events.PartitionsKey])
	require.Equal(t, []string{stored(0), stored(0), stored(1), stored(1)}, pulled(t, durable))
}

// With partitions the settings that make them are Latchkey's; without, an operator's
// republish stays.
func TestSettingsOfPartitionsAreLatchkeys(t *testing.T) {
	t.Parallel()
	js := jetStreamOn(t, enginestest.NATSWith(t, engines.NATSOptions{}).URL())
	m := &memory{}
	_, one := partitioned(js, m, "", 1, zap.NewNop())
	cfg, three := partitioned(js, m, "", 3, zap.NewNop())
	s := cfg.NATS.Subjects()
	_, err := one.Ensure(t.Context())
	require.NoError(t, err)
	c := configOf(t, js, s.LifecycleStream())
	theirs := &jetstream.RePublish{Source: ">", Destination: "copy.>"}
	c.RePublish = theirs
	_, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
	_, err = one.Ensure(t.Context())
	require.NoError(t, err)
	require.Equal(t, theirs, configOf(t, js, s.LifecycleStream()).RePublish)

	_, err = three.Ensure(t.Context())
	require.NoError(t, err)
	var most int64
	for n, p := range s.LifecyclePartitions() {
		c := configOf(t, js, p.Stream)
		require.Equal(t, &jetstream.RePublish{Source: "*.*.*", Destination: s.SubscribedLifecycle()}, c.RePublish)
		if n > 0 {
			most += c.MaxBytes
		}
	}
	require.EqualValues(t, int64(8<<30)/3*2, most, "the first keeps what it has, for the events in it")

	managed := cfg
	managed.NATS.ManageStreams = false
	kept := must(streams.New(streams.Options{JetStream: js, State: m, Config: managed, Log: zap.NewNop()}))
	for setting, change := range map[string]func(*jetstream.StreamConfig){
		"republish":                    func(c *jetstream.StreamConfig) { c.RePublish = theirs },
		"subject_transform":            func(c *jetstream.StreamConfig) { c.SubjectTransform = nil },
		"metadata latchkey-partitions": func(c *jetstream.StreamConfig) { c.Metadata[events.PartitionsKey] = "2" },
		"subjects":                     func(c *jetstream.StreamConfig) { c.Subjects = append(c.Subjects, "more") },
	} {
		c := configOf(t, js, s.LifecycleStream())
		change(&c)
		_, err = js.UpdateStream(t.Context(), c)
		require.NoError(t, err, setting)
		_, err = kept.Ensure(t.Context())
		require.ErrorIs(t, err, streams.ErrUnfit)
		require.ErrorContains(t, err, "stream LATCHKEY_LIFECYCLE: "+setting+" is ")
		_, err = three.Identities(t.Context()) // without a restart, or subscribers would miss events until then
		require.NoError(t, err, setting)
		_, err = kept.Ensure(t.Context())
		require.NoError(t, err, setting)
	}
	for _, junk := range []string{"", "two", "04", "257", "-3"} { // what subscribers don't understand
		c := configOf(t, js, s.LifecycleStream())
		c.Metadata[events.PartitionsKey] = junk
		_, err = js.UpdateStream(t.Context(), c)
		require.NoError(t, err)
		_, err = streams.Lifecycle(t.Context(), js, s)
		require.ErrorContains(t, err, fmt.Sprintf("%q, not 1 to 256", junk))
		_, err = three.Identities(t.Context())
		require.NoError(t, err)
		require.Equal(t, "3", configOf(t, js, s.LifecycleStream()).Metadata[events.PartitionsKey])
	}
	require.NoError(t, js.DeleteStream(t.Context(), "LATCHKEY_LIFECYCLE_1"))
	_, err = kept.Ensure(t.Context())
	require.ErrorContains(t, err, "stream LATCHKEY_LIFECYCLE_1 is missing")
}

// Partitions share the room that one stream would have.
func TestPartitionsShareTheRoomForEvents(t *testing.T) {
	t.Parallel()
	const most, partitions = 64 << 20, 4
	js := withRoom(t, most)
	cfg, topology := partitioned(js, &memory{}, "", partitions, zap.NewNop())
	_, err := topology.Ensure(t.Context())
	require.NoError(t, err)
	for _, p := range cfg.NATS.Subjects().LifecyclePartitions() {
		require.EqualValues(t, most/2/partitions, configOf(t, js, p.Stream).MaxBytes)
	}
}

// Workers of a release without partitions of events take the stream back and leave its
// republish, which then leads to the stream itself. An event has an id: it is stored once.
func TestAWorkerOfAReleaseWithoutPartitionsOfEvents(t *testing.T) {
	t.Parallel()
	js := jetStreamOn(t, enginestest.NATSWith(t, engines.NATSOptions{}).URL())
	m := &memory{}
	oneCfg, one := partitioned(js, m, "", 1, zap.NewNop())
	fourCfg, four := partitioned(js, m, "", 4, zap.NewNop())
	s := oneCfg.NATS.Subjects()
	_, err := one.Ensure(t.Context())
	require.NoError(t, err)
	before := configOf(t, js, s.LifecycleStream())
	_, err = four.Ensure(t.Context())
	require.NoError(t, err)
	since := configOf(t, js, s.LifecycleStream())
	c := since
	c.Subjects, c.SubjectTransform = before.Subjects, nil
	_, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)

	stored := s.Lifecycle(events.TokenStored, "alice")
	heard, err := js.Conn().SubscribeSync(stored)
	require.NoError(t, err)
	require.NoError(t, publishEvent(t, js, s, stored, "a"))
	for range 2 { // as published, and passed on
		_, err := heard.NextMsg(5 * time.Second)
		require.NoError(t, err)
	}
	require.NoError(t, publishEvent(t, js, s, stored, "b"))
	require.Equal(t, map[string][]string{"LATCHKEY_LIFECYCLE": {"a", "b"}}, held(t, js, s, stored))

	_, err = four.Identities(t.Context())
	require.NoError(t, err)
	require.Equal(t, since.Subjects, configOf(t, js, s.LifecycleStream()).Subjects)
	require.NoError(t, publishEvent(t, js, fourCfg.NATS.Subjects(), stored, "c"))
	_, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
	_, err = one.Identities(t.Context()) // its subjects are right
	require.NoError(t, err)
	require.Nil(t, configOf(t, js, s.LifecycleStream()).RePublish)
}
