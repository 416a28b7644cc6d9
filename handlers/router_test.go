package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options/optionstest"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/streams"
)

// letter waits for the only dead letter.
func (f *fixture) letter() DeadLetter {
	f.t.Helper()
	f.eventually(func() bool {
		return f.left(f.subjects.DeadLetterStream()) == 1 && f.left(f.subjects.IntegrationStream()) == 0
	}, "not parked")
	stream, err := f.js.Stream(f.t.Context(), f.subjects.DeadLetterStream())
	require.NoError(f.t, err)
	msg, err := stream.GetLastMsgForSubject(f.t.Context(), f.subjects.DeadLetter("*", events.IntegrationConnected))
	require.NoError(f.t, err)
	require.NotContains(f.t, string(msg.Data), "the body")
	var letter DeadLetter
	require.NoError(f.t, json.Unmarshal(msg.Data, &letter))
	body, err := f.dead.Open(f.t.Context(), letter)
	require.NoError(f.t, err)
	require.Equal(f.t, "the body", string(body))
	return letter
}

func TestInvalidMessageIsParkedAtOnce(t *testing.T) {
	f := newFixture(t)
	f.run(1, func(context.Context, *message.Message) error {
		return fmt.Errorf("wrapped: %w", &events.InvalidError{Message: events.IntegrationConnected, Problem: "userId: empty"})
	})
	f.publish("the body")
	letter := f.letter()
	require.Equal(t, "invalid integration.connected: userId: empty", letter.Reason)
	require.Equal(t, 1, letter.Attempts)
	require.Equal(t, events.IntegrationConnected, letter.Message)
	require.Equal(t, f.subjects.Connected(), letter.Subject)
}

func TestMessageThatGoesOnFailingIsParked(t *testing.T) {
	f := newFixture(t)
	f.run(1, func(context.Context, *message.Message) error { return errors.New("a fault") })
	f.publish("the body")
	letter := f.letter()
	require.Equal(t, f.messages.MaxDeliver, letter.Attempts)
	require.Contains(t, letter.Reason, "a fault")
}

func TestPanicParksAndDoesNotTellItsValue(t *testing.T) {
	f := newFixture(t)
	f.run(1, func(context.Context, *message.Message) error { panic("the token") })
	f.publish("the body")
	letter := f.letter()
	require.Equal(t, f.messages.MaxDeliver, letter.Attempts)
	require.NotContains(t, letter.Reason, "the token")
	require.Contains(t, f.logs.String(), "panic in a handler")
	require.NotContains(t, f.logs.String(), "the token")
}

func TestOutagesNeverPark(t *testing.T) {
	for _, err := range []error{
		&store.LeasedError{},
		envelope.ErrKMS,
		context.DeadlineExceeded,
		context.Canceled,
		mongo.ErrClientDisconnected,
		mongo.CommandError{Code: 91, Name: "ShutdownInProgress"},
		mongo.CommandError{Code: 10107, Name: "NotWritablePrimary"},
		mongo.CommandError{Labels: []string{"NetworkError"}},
		mongo.WriteException{WriteConcernError: &mongo.WriteConcernError{Code: 64}},
		mongo.BulkWriteException{WriteConcernError: &mongo.WriteConcernError{Code: 100}},
		nats.ErrTimeout,
		nats.ErrConnectionClosed,
		nats.ErrNoResponders,
		jetstream.ErrNoStreamResponse,
		jetstream.ErrStreamNotFound,
		&jetstream.APIError{Code: 503},
		&jetstream.APIError{Code: 400, ErrorCode: 10002, Description: "resource limits exceeded for account"},
		nats.ErrReconnectBufExceeded,
		nats.ErrConnectionReconnecting,
		nats.ErrConnectionDraining,
		jetstream.ErrAsyncPublishTimeout, // of schedules, which are published without waiting
		jetstream.ErrTooManyStalledMsgs,
		jetstream.ErrJetStreamPublisherClosed,
	} {
		require.True(t, refresher.Outage(fmt.Errorf("wrapped: %w", err)), "%v", err)
	}
	for _, err := range []error{
		errors.New("a fault"), errPanic, store.ErrConflict, refresher.ErrRecoveryEntry, envelope.ErrSealed,
		mongo.CommandError{Code: 13, Name: "Unauthorized"},
		&jetstream.APIError{Code: 400},
	} {
		require.False(t, refresher.Outage(err), "%v", err)
	}

	f := newFixture(t)
	var attempts atomic.Int32
	f.run(1, func(context.Context, *message.Message) error {
		if attempts.Add(1) <= int32(2*f.messages.MaxDeliver) {
			return envelope.ErrKMS
		}
		return nil
	})
	f.publish("the body")
	f.eventually(func() bool { return f.left(f.subjects.IntegrationStream()) == 0 }, "not handled in the end")
	require.EqualValues(t, 2*f.messages.MaxDeliver+1, attempts.Load())
	require.Zero(t, f.left(f.subjects.DeadLetterStream()))
}

func TestMessageIsKeptWhileItCannotBeParked(t *testing.T) {
	f := newFixture(t)
	require.NoError(t, f.js.DeleteStream(t.Context(), f.subjects.DeadLetterStream()))
	var attempts atomic.Int32
	f.run(1, func(context.Context, *message.Message) error {
		attempts.Add(1)
		return &events.InvalidError{Message: events.IntegrationConnected, Problem: "userId: empty"}
	})
	f.publish("the body")
	f.eventually(func() bool { return attempts.Load() > int32(2*f.messages.MaxDeliver) }, "not tried again")
	require.Equal(t, 1, f.left(f.subjects.IntegrationStream()))
	f.ensure()
	require.Greater(t, f.letter().Attempts, 2*f.messages.MaxDeliver)
}

// TestOnlyItsOwnFailuresParkAMessage: whatever else brings a message back, and in
// whatever order, it is parked by exactly as many failures of its own as it may
// have.
func TestOnlyItsOwnFailuresParkAMessage(t *testing.T) {
	const (
		outageOf = 'o' // an engine is away
		leased   = 'l' // another worker is at work on its grant
		failing  = 'f'
		panicked = 'p'
	)
	f := newFixture(t)
	for _, sequence := range []string{"fff", "ooooooofff", "ofofof", "ffoooooof", "pfp", "llllplllpllf", "ooolplofoolf"} {
		t.Run(sequence, func(t *testing.T) {
			var attempts atomic.Int32
			stop := f.run(1, func(context.Context, *message.Message) error {
				n := int(attempts.Add(1))
				if n > len(sequence) {
					t.Error("tried once more")
					return nil
				}
				switch sequence[n-1] {
				case outageOf:
					return envelope.ErrKMS
				case leased:
					return &store.LeasedError{}
				case panicked:
					panic("a fault")
				}
				return errors.New("a fault")
			})
			defer stop()
			f.publish("the body")
			letter := f.letter()
			require.EqualValues(t, len(sequence), attempts.Load())
			require.Equal(t, len(sequence), letter.Attempts)
			require.Contains(t, letter.Reason, "3 failures")
			require.NoError(t, f.dead.Drop(t.Context(), f.only()))
		})
	}
}

// TestStopsOfWorkersParkNothing: deliveries that no handler has answered count
// for nothing.
func TestStopsOfWorkersParkNothing(t *testing.T) {
	f := newFixture(t)
	f.publish("the body")
	consumer, err := f.streams.Consumer(t.Context(), f.subjects.IntegrationStream(), f.subjects.Connected())
	require.NoError(t, err)
	for range 2 * f.messages.MaxDeliver {
		msg, err := consumer.Next()
		require.NoError(t, err)
		require.NoError(t, msg.Nak())
	}
	var attempts atomic.Int32
	f.run(1, func(context.Context, *message.Message) error {
		attempts.Add(1)
		return errors.New("a fault")
	})
	require.Equal(t, 3*f.messages.MaxDeliver, f.letter().Attempts)
	require.EqualValues(t, f.messages.MaxDeliver, attempts.Load())
}

func TestEveryRequiredOptionIsNamed(t *testing.T) {
	now, newID, log := time.Now, func() string { return "id" }, zap.NewNop()
	settler, err := refresher.NewSettler(refresher.SettlerOptions{Config: config.Default(), Now: now, NewID: newID, Rand: func() float64 { return 1 }})
	require.NoError(t, err)
	js := struct{ jetstream.JetStream }{}
	letters := DeadLettersOptions{JetStream: &js, Envelope: &envelope.Envelope{}, Now: now, NewID: newID, Log: log}
	optionstest.Required(t, NewDeadLetters, letters, "JetStream", "Envelope", "Now", "NewID", "Log")
	optionstest.Required(t, NewDeadLetters, DeadLettersOptions{JetStream: &js}, "JetStream") // a command only lists and drops them
	optionstest.Required(t, NewConnector, ConnectorOptions{
		Store: &store.Store{}, Envelope: &envelope.Envelope{}, Fingerprints: &store.Fingerprints{}, Settler: settler, Dispatcher: &refresher.Dispatcher{}, Log: log,
	}, "Store", "Envelope", "Fingerprints", "Settler", "Dispatcher", "Log")
	optionstest.Required(t, NewConnectKeys, ConnectKeysOptions{
		Store: &store.Store{}, Envelope: &envelope.Envelope{}, Config: config.Default().Connect, Now: now, Log: log,
	}, "Store", "Envelope", "Config", "Now", "Log")
	optionstest.Required(t, NewRejections, RejectionsOptions{Conn: &nats.Conn{}, Now: now, NewID: newID, Log: log}, "Conn", "Now", "NewID", "Log")
	subscriber := SubscriberOptions{Streams: &streams.Topology{}, AckWait: time.Second, Sources: map[string]Source{}, Log: log}
	optionstest.Required(t, NewSubscriber, subscriber, "Streams", "AckWait", "Sources", "Log")
	optionstest.Required(t, NewRouter, RouterOptions{
		Routes: []Route{}, Subscriber: must(NewSubscriber(subscriber)), Messages: config.Default().Messages, DeadLetters: &DeadLetters{}, Grace: time.Second, Log: log, Metrics: prometheus.NewRegistry(),
	}, "Routes", "Subscriber", "Messages", "DeadLetters", "Grace", "Log", "Metrics")
}
