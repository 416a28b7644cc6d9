package handlers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/sealing"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/envelope/envelopetest"
	"github.com/latchkey/latchkey/store/streams"
)

// ofEveryKind returns the n-th of many connects that nobody can handle, of at
// least a size. Each names a user of its own.
func ofEveryKind(t testing.TB, n, size int) []byte {
	t.Helper()
	pad := strings.Repeat("x", size)
	plain := fmt.Sprintf(`{"userId":"user-%d","payload":{},"x":%q}`, n, pad)
	switch n % 7 {
	case 0:
		return fmt.Appendf(nil, `%d no JSON "userId":"user-%[1]d" %s`, n, pad)
	case 1:
		return []byte(plain)
	case 2:
		return fmt.Appendf(nil, `{"specversion":"1.0","id":"1","source":"s","type":"another","data":%s}`, plain)
	case 3:
		return []byte(plain[:len(plain)-1])
	case 4: // for no key that there ever was
		return sealedTo(t, unknownKey(t), plain)
	case 5:
		return sealedTo(t, unknownKey(t), plain)[:size/2+20]
	}
	return nil
}

var unknown = sync.OnceValues(sealing.GenerateKey)

func unknownKey(t testing.TB) sealing.PublicKey {
	t.Helper()
	key, err := unknown()
	require.NoError(t, err)
	return key.Public()
}

func sealedTo(t testing.TB, key sealing.PublicKey, body string) []byte {
	t.Helper()
	sealed, err := key.Seal([]byte(body))
	require.NoError(t, err)
	return sealed
}

// flood publishes many messages to a subject.
func (f *fixture) flood(subject string, n int, body func(n int) []byte) {
	f.t.Helper()
	js, err := jetstream.New(f.js.Conn(), jetstream.WithPublishAsyncMaxPending(100), jetstream.WithPublishAsyncTimeout(patience))
	require.NoError(f.t, err)
	for n := range n {
		_, err := js.PublishAsync(subject, body(n), jetstream.WithStallWait(patience))
		require.NoError(f.t, err)
	}
	<-js.PublishAsyncComplete()
}

// limitDeadLetters has the stream take no more messages than that; -1: any number.
func (f *fixture) limitDeadLetters(most int64) {
	f.t.Helper()
	stream, err := f.js.Stream(f.t.Context(), f.subjects.DeadLetterStream())
	require.NoError(f.t, err)
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgs, cfg.Discard = most, jetstream.DiscardNew
	_, err = f.js.UpdateStream(f.t.Context(), cfg)
	require.NoError(f.t, err)
}

// holding is a JetStream that keeps what is published until release is closed.
type holding struct {
	jetstream.JetStream
	release chan struct{}
}

func (h holding) PublishMsg(ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	<-h.release
	return h.JetStream.PublishMsg(ctx, msg, opts...)
}

// TestJunkDoesNotHoldUpWhatIsBehindIt: however much there is of it, in messages or
// bytes, and in whatever way the dead letters can't be stored. It is parked when
// they can, each message once.
func TestJunkDoesNotHoldUpWhatIsBehindIt(t *testing.T) {
	ways := map[string]func(f *fixture) (again func()){
		"gone": func(f *fixture) func() {
			require.NoError(f.t, f.js.DeleteStream(f.t.Context(), f.subjects.DeadLetterStream()))
			return f.ensure
		},
		"full": func(f *fixture) func() {
			f.limitDeadLetters(1)
			_, err := f.js.Publish(f.t.Context(), f.subjects.DeadLetter("x", "x"), nil)
			require.NoError(f.t, err)
			return func() {
				f.limitDeadLetters(-1)
				stream, err := f.js.Stream(f.t.Context(), f.subjects.DeadLetterStream())
				require.NoError(f.t, err)
				require.NoError(f.t, stream.Purge(f.t.Context(), jetstream.WithPurgeSubject(f.subjects.DeadLetter("x", "x"))))
			}
		},
		"hanging": func(f *fixture) func() {
			h := holding{f.js, make(chan struct{})}
			f.dead.opts.JetStream = h
			release := sync.OnceFunc(func() { close(h.release) })
			f.t.Cleanup(release)
			return release
		},
	}
	for _, flood := range []struct {
		messages, bytes int
		requireSealed   bool
	}{{1500, 0, false}, {1100, 20 << 10, true}, {50, 700_000, false}} {
		for way, away := range ways {
			if enginestest.RaceDetector && flood.bytes > 0 {
				continue // make scale has them
			}
			t.Run(fmt.Sprintf("%s, %d of %d bytes", way, flood.messages, flood.bytes), func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				f.messages.AckWait = patience // none comes twice
				pause := f.messages.Backoff
				f.messages.Backoff = config.Backoff{Min: time.Hour, Max: time.Hour} // what came back would go before
				f.ensure()
				keys := &ConnectKeys{opts: ConnectKeysOptions{Now: time.Now}, asOf: time.Now().Add(time.Hour)} // as if just read
				f.dead.opts.Keys = keys
				cfg := config.Default().Connect
				cfg.RequireSealed = flood.requireSealed
				junk := Connected(nil, keys, cfg)
				again := away(f)
				f.flood(f.subjects.Connected(), flood.messages, func(n int) []byte { return ofEveryKind(t, n, flood.bytes) })
				f.publish("healthy")
				handled := make(chan struct{}, 1)
				stop := f.run(2, func(ctx context.Context, msg *message.Message) error {
					if string(msg.Payload) == "healthy" {
						handled <- struct{}{}
						return nil
					}
					return junk(ctx, msg)
				})
				enginestest.Receive(t, handled)
				require.GreaterOrEqual(t, f.left(f.subjects.IntegrationStream()), flood.messages, "acknowledged before it is stored")
				again()
				stop()
				f.eventually(func() bool {
					letters, err := f.dead.Count(t.Context())
					require.NoError(t, err)
					return f.left(f.subjects.IntegrationStream()) == flood.messages-int(letters)
				}, "not all that was parked is acknowledged")
				// A new consumer has the others come at once.
				require.NoError(t, f.js.DeleteConsumer(t.Context(), f.subjects.IntegrationStream(), streams.Durable(f.subjects.Connected())))
				f.messages.Backoff = pause
				f.run(2, junk)
				f.eventually(func() bool { return f.left(f.subjects.IntegrationStream()) == 0 }, "not all parked")
				letters, err := f.dead.Count(t.Context())
				require.NoError(t, err)
				require.EqualValues(t, flood.messages, letters)
			})
		}
	}
}

// TestParkingIsBounded: by the messages, by their bytes, and by those that are
// sealed and published at once.
func TestParkingIsBounded(t *testing.T) {
	for _, size := range []int{0, 1000, parkingBytes / mostParked, 100_000, 1 << 20, 10 << 20, 100 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			p := newParking()
			var inside, parks, most atomic.Int64
			release := make(chan struct{})
			refused := make(chan error, 3000)
			for range cap(refused) {
				go func() {
					refused <- p.do(t.Context(), size, 0, func() { inside.Add(1) }, func() error {
						now := parks.Add(1)
						defer parks.Add(-1)
						for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
						}
						<-release
						return nil
					})
				}()
			}
			// Those for whom there is no room are refused, those without a turn too.
			for range cap(refused) - min(parkedAtOnce, max(1, parkingBytes/max(size, parkingBytes/mostParked))) {
				require.ErrorIs(t, enginestest.Receive(t, refused), errParkingFull)
			}
			entered := inside.Load()
			require.LessOrEqual(t, entered, int64(mostParked))
			if entered > 1 {
				require.LessOrEqual(t, entered*int64(size), int64(parkingBytes))
			}
			close(release)
			for parks.Load() > 0 {
				require.NoError(t, enginestest.Receive(t, refused))
			}
			require.LessOrEqual(t, most.Load(), int64(parkedAtOnce))
			f := &fixture{t: t}
			f.eventually(func() bool {
				return p.do(t.Context(), size, 0, func() {}, func() error { return nil }) == nil
			}, "room is not given back")
		})
	}
}

// TestJunkMakesNoDataKeys: what does not decode names any number of users, and
// costs no calls to KMS and no writes for them. What decodes is sealed as all else
// of its user.
func TestJunkMakesNoDataKeys(t *testing.T) {
	f := newFixture(t)
	f.sealing.PerUser = true
	known := f.sealing.Store.(*envelopetest.Keys)
	f.dead.opts.Envelope = f.reopened()
	f.dead.opts.Keys = &ConnectKeys{opts: ConnectKeysOptions{Now: time.Now}, asOf: time.Now().Add(time.Hour)} // as if just read
	const each = 70
	flood := func(handle Handler, body func(n int) []byte) {
		stop := f.run(4, handle)
		defer stop()
		f.flood(f.subjects.Connected(), each, body)
		f.eventually(func() bool { return f.left(f.subjects.IntegrationStream()) == 0 }, "not all parked")
	}
	flood(Connected(nil, f.dead.opts.Keys, config.Default().Connect), func(n int) []byte { return ofEveryKind(t, n, 0) })
	flood(Disconnected(nil), func(n int) []byte { return fmt.Appendf(nil, `{"userId":"disconnected-%d","brokerType":7}`, n) })
	named := map[string]bool{}
	for letter, err := range f.dead.All(t.Context()) {
		require.NoError(t, err)
		_, err := f.dead.Open(t.Context(), letter.DeadLetter)
		require.NoError(t, err)
		named[letter.Tag] = true
	}
	require.Greater(t, len(named), each, "an erasure finds them")
	require.Equal(t, 1, f.kms.Calls("GenerateDataKey"))
	require.Len(t, known.All(), 1)

	d := &delivery{Subject: f.subjects.Connected(), Attempt: 1, User: "alice"}
	require.NoError(t, f.dead.Park(t.Context(), events.IntegrationConnected, d, []byte("{}"), "failed too often"))
	require.Len(t, known.All(), 2)
	scopes := map[string]bool{}
	for _, key := range known.All() {
		scopes[key.Scope] = true
	}
	require.True(t, scopes[envelope.ScopeOf("alice")])
}

// TestMessagesThatComeBackHoldUpNobody: any number of them may wait to come back.
func TestMessagesThatComeBackHoldUpNobody(t *testing.T) {
	for what, fault := range map[string]error{"by an outage": envelope.ErrKMS, "by their own fault": errors.New("a fault")} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t)
			f.messages.Backoff = config.Backoff{Min: time.Hour, Max: time.Hour}
			f.flood(f.subjects.Connected(), 500, func(n int) []byte { return fmt.Append(nil, n) })
			f.publish("healthy")
			handled := make(chan struct{})
			f.run(1, func(_ context.Context, msg *message.Message) error {
				if string(msg.Payload) != "healthy" {
					return fault
				}
				close(handled)
				return nil
			})
			enginestest.Receive(t, handled)
		})
	}
}
