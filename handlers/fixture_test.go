package handlers

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim/kmssimtest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/envelope/envelopetest"
	"github.com/latchkey/latchkey/store/streams"
	"github.com/latchkey/latchkey/store/streams/streamstest"
)

// patience bounds every wait, which ends as soon as what it waits for is there.
const patience = 60 * time.Second

// fixture is a broker with the streams, and what routers need.
type fixture struct {
	t        testing.TB
	js       jetstream.JetStream
	subjects events.Subjects
	messages config.Messages
	streams  *streams.Topology
	kms      *kmssim.KMS
	sealing  envelope.Options
	dead     *DeadLetters
	log      *zap.Logger
	logs     *enginestest.Text
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	return newFixtureOn(t, enginestest.NATS(t))
}

func newFixtureOn(t testing.TB, broker *enginestest.Broker) *fixture {
	t.Helper()
	nc, err := nats.Connect(broker.URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	f := &fixture{t: t, js: js, logs: &enginestest.Text{}}
	f.subjects.Prefix = strings.ReplaceAll(enginestest.Name(t), "_", "-")
	f.messages = config.Messages{AckWait: time.Second, MaxDeliver: 3, Backoff: config.Backoff{Min: 10 * time.Millisecond, Max: 50 * time.Millisecond}}
	f.log = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), f.logs, zap.DebugLevel))
	f.ensure()
	f.dead, err = NewDeadLetters(DeadLettersOptions{JetStream: js, Envelope: f.envelope(), Subjects: f.subjects, Now: time.Now, NewID: nats.NewInbox, Log: f.log})
	require.NoError(t, err)
	return f
}

// ensure makes the streams for the partitions and bounds of messages that are set.
func (f *fixture) ensure() {
	f.t.Helper()
	cfg := config.Default()
	cfg.NATS.Prefix, cfg.NATS.Partitions, cfg.Messages = f.subjects.Prefix, max(f.subjects.Partitions, 1), f.messages
	f.streams = streamstest.New(f.js, cfg, f.log)
	_, err := f.streams.Ensure(f.t.Context())
	require.NoError(f.t, err)
}

func (f *fixture) envelope() *envelope.Envelope {
	f.t.Helper()
	server := kmssimtest.Start(f.t, "alias/test")
	f.kms = server.KMS
	f.sealing = envelope.Options{KMS: server.Client(), Store: &envelopetest.Keys{}, KeyID: "alias/test"}
	return f.reopened()
}

// reopened is the envelope of a process that has just started.
func (f *fixture) reopened() *envelope.Envelope { return must(envelope.New(f.sealing)) }

// run routes connects to a handler until the test ends or stop is called.
func (f *fixture) run(concurrency int, handle Handler) (stop func()) {
	f.t.Helper()
	return f.runOn(f.subscriber(concurrency), handle)
}

func (f *fixture) subscriber(concurrency int) *Subscriber {
	return must(NewSubscriber(SubscriberOptions{Streams: f.streams, AckWait: f.messages.AckWait, Sources: map[string]Source{
		f.subjects.Connected(): {Stream: f.subjects.IntegrationStream(), Concurrency: concurrency},
	}, Log: f.log}))
}

func (f *fixture) runOn(sub message.Subscriber, handle Handler) (stop func()) {
	f.t.Helper()
	return f.runRoutes(RouterOptions{Routes: []Route{{Name: events.IntegrationConnected, Subject: f.subjects.Connected(), Handle: handle}}, Subscriber: sub})
}

func (f *fixture) runRoutes(o RouterOptions) (stop func()) {
	f.t.Helper()
	o.Messages, o.DeadLetters, o.Grace, o.Log, o.Metrics = f.messages, f.dead, patience, f.log, prometheus.NewRegistry()
	router, err := NewRouter(o)
	require.NoError(f.t, err)
	done := make(chan error, 1)
	go func() { done <- router.Run(context.Background()) }()
	<-router.Running()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			require.NoError(f.t, router.Close())
			require.NoError(f.t, <-done)
		})
	}
	f.t.Cleanup(stop)
	return stop
}

func (f *fixture) publish(body string) {
	f.t.Helper()
	_, err := f.js.Publish(f.t.Context(), f.subjects.Connected(), []byte(body))
	require.NoError(f.t, err)
}

// left returns how many messages a stream holds.
func (f *fixture) left(stream string) int {
	f.t.Helper()
	s, err := f.js.Stream(f.t.Context(), stream)
	require.NoError(f.t, err)
	return int(s.CachedInfo().State.Msgs)
}

func (f *fixture) eventually(condition func() bool, what string) {
	f.t.Helper()
	require.Eventually(f.t, condition, patience, 10*time.Millisecond, what)
}

// must returns what a constructor has made of complete options.
func must[T any](made T, err error) T {
	if err != nil {
		panic(err)
	}
	return made
}
