package handlers

import (
	"bytes"
	"context"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store/envelope"
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
	logs     *logBuffer
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
	f := &fixture{t: t, js: js, logs: &logBuffer{}}
	f.subjects.Prefix = strings.ReplaceAll(enginestest.Name(t), "_", "-")
	f.messages = config.Messages{AckWait: time.Second, MaxDeliver: 3, Backoff: config.Backoff{Min: 10 * time.Millisecond, Max: 50 * time.Millisecond}}
	f.log = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), f.logs, zap.DebugLevel))
	f.ensure()
	f.dead = &DeadLetters{JS: js, Envelope: f.envelope(), Subjects: f.subjects, Now: time.Now, NewID: nats.NewInbox, Log: f.log}
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
	var err error
	f.kms, err = kmssim.Open(kmssim.Options{Dir: f.t.TempDir(), AccessKeyID: "id", SecretAccessKey: secret.New("key")})
	require.NoError(f.t, err)
	_, err = f.kms.CreateKey("alias/test")
	require.NoError(f.t, err)
	server := httptest.NewServer(f.kms)
	f.t.Cleanup(server.Close)
	f.sealing = envelope.Options{KMS: kms.NewFromConfig(f.kms.Config(server.URL)), Store: &keys{known: map[string]envelope.WrappedKey{}}, KeyID: "alias/test"}
	return f.reopened()
}

// reopened is the envelope of a process that has just started.
func (f *fixture) reopened() *envelope.Envelope { return envelope.New(f.sealing) }

// keys keeps wrapped keys in memory.
type keys struct {
	mu    sync.Mutex
	known map[string]envelope.WrappedKey
}

func (k *keys) PutKey(_ context.Context, key envelope.WrappedKey) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.known[key.ID] = key
	return nil
}

func (k *keys) SealingKey(context.Context, string, time.Time, time.Time) (envelope.WrappedKey, error) {
	return envelope.WrappedKey{}, envelope.ErrUnknownKey
}

func (k *keys) Key(_ context.Context, id string) (envelope.WrappedKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key, ok := k.known[id]; ok {
		return key, nil
	}
	return envelope.WrappedKey{}, envelope.ErrUnknownKey
}

// run routes connects to a handler until the test ends or stop is called.
func (f *fixture) run(concurrency int, handle Handler) (stop func()) {
	f.t.Helper()
	return f.runOn(f.subscriber(concurrency), handle)
}

func (f *fixture) subscriber(concurrency int) *Subscriber {
	return NewSubscriber(f.streams, f.messages.AckWait, map[string]Source{
		f.subjects.Connected(): {Stream: f.subjects.IntegrationStream(), Concurrency: concurrency},
	}, f.log)
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

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) Sync() error { return nil }

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
