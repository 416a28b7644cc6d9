package client_test

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
)

// patience bounds every wait; a wait ends when what it waits for is there.
const patience = 30 * time.Second

// bench is a broker with the streams that a client meets, and no worker.
type bench struct {
	t        *testing.T
	ctx      context.Context
	nc       *nats.Conn
	js       jetstream.JetStream
	subjects events.Subjects
}

func newBench(t *testing.T) *bench {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	nc, err := nats.Connect(enginestest.NATS(t).URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return &bench{t, ctx, nc, js, events.Subjects{Prefix: enginestest.Name(t)}}
}

func (b *bench) client(options ...client.Option) *client.Client {
	b.t.Helper()
	c, err := client.New(b.nc, append([]client.Option{client.Prefix(b.subjects.Prefix)}, options...)...)
	require.NoError(b.t, err)
	return c
}

// integration makes the stream of connects and disconnects.
func (b *bench) integration(change func(*jetstream.StreamConfig)) jetstream.Stream {
	b.t.Helper()
	cfg := jetstream.StreamConfig{Name: b.subjects.IntegrationStream(), Subjects: []string{b.subjects.Connected(), b.subjects.Disconnected()}}
	if change != nil {
		change(&cfg)
	}
	stream, err := b.js.CreateStream(b.ctx, cfg)
	require.NoError(b.t, err)
	return stream
}

// lifecycle makes the streams of lifecycle events that Partitions demands, and returns the
// first. What it has made before it brings up to that.
func (b *bench) lifecycle() jetstream.Stream {
	b.t.Helper()
	partitions := b.subjects.LifecyclePartitions()
	for n := len(partitions) - 1; n >= 0; n-- { // as the last, the first tells of the others
		cfg := jetstream.StreamConfig{Name: partitions[n].Stream}
		if published := partitions[n].Published; published != "" {
			cfg.Subjects = []string{published}
			cfg.SubjectTransform = &jetstream.SubjectTransformConfig{Source: published, Destination: b.subjects.SubscribedLifecycle()}
		} else {
			for _, kind := range events.LifecycleKinds {
				cfg.Subjects = append(cfg.Subjects, b.subjects.LifecycleAll(kind))
			}
		}
		if n == 0 && len(partitions) > 1 {
			cfg.Metadata = map[string]string{events.PartitionsKey: strconv.Itoa(len(partitions))}
		}
		_, err := b.js.CreateOrUpdateStream(b.ctx, cfg)
		require.NoError(b.t, err)
	}
	return b.stream(0)
}

// stream is one of the streams of lifecycle events.
func (b *bench) stream(n int) jetstream.Stream {
	b.t.Helper()
	subjects := b.subjects
	subjects.Partitions = n + 1
	stream, err := b.js.Stream(b.ctx, subjects.LifecyclePartitions()[n].Stream)
	require.NoError(b.t, err)
	return stream
}

// user is one whose events are in a stream.
func (b *bench) user(n int) string {
	for i := 0; ; i++ {
		user := "user" + strconv.Itoa(i)
		if b.subjects.PartitionOf(user) == n {
			return user
		}
	}
}

// tell publishes a lifecycle event as a worker does.
func (b *bench) tell(id, kind, user string) {
	b.t.Helper()
	_, err := b.js.Publish(b.ctx, b.subjects.PublishedLifecycle(b.subjects.Lifecycle(kind, user)), b.event(id, kind, user))
	require.NoError(b.t, err)
}

// event is the body of a lifecycle event.
func (b *bench) event(id, kind, user string) []byte {
	b.t.Helper()
	e := events.LifecycleEvent{ID: id, Kind: kind, Time: time.Unix(1, 0).UTC(), Data: events.Lifecycle{
		UserID: user, GrantID: "g", BrokerType: "coinbase", Accounts: []events.Account{}, Version: 1,
	}}
	body, err := e.Encode()
	require.NoError(b.t, err)
	return body
}

// answer answers token requests, each with the next of the answers and after
// that with the last; nil: none at all.
func (b *bench) answer(answers ...*nats.Msg) {
	b.t.Helper()
	_, err := b.nc.Subscribe(b.subjects.TokenGetAll(), func(m *nats.Msg) {
		next := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		if next != nil {
			_ = m.RespondMsg(&nats.Msg{Header: next.Header, Data: next.Data})
		}
	})
	require.NoError(b.t, err)
	require.NoError(b.t, b.nc.Flush())
}

func refusal(code string, more ...any) *nats.Msg {
	said := map[string]any{"code": code, "message": "words"}
	for _, one := range more {
		switch one := one.(type) {
		case events.UnavailableAccount:
			said["unavailable"] = []events.UnavailableAccount{one}
		case events.RefusedResult:
			said["refused"] = []events.RefusedResult{one}
		}
	}
	body, _ := json.Marshal(said)
	return &nats.Msg{Header: nats.Header{"Nats-Service-Error": {code}, "Nats-Service-Error-Code": {events.CodeNumber[code]}}, Data: body}
}
