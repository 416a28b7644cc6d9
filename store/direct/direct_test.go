package direct_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/store/direct"
)

// fixture is a stream whose messages say where they stand.
type fixture struct {
	t      *testing.T
	broker *enginestest.Broker
	js     jetstream.JetStream
	name   string
	stored int
}

func newFixture(t *testing.T, change func(*jetstream.StreamConfig)) *fixture {
	t.Helper()
	f := &fixture{t: t, broker: enginestest.NATS(t), name: enginestest.Name(t)}
	nc, err := nats.Connect(f.broker.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	f.js, err = jetstream.New(nc)
	require.NoError(t, err)
	c := jetstream.StreamConfig{Name: f.name, Subjects: []string{f.name + ".>"}, AllowDirect: true}
	if change != nil {
		change(&c)
	}
	_, err = f.js.CreateStream(t.Context(), c)
	require.NoError(t, err)
	return f
}

// put stores messages in turn under a and b, with sequences from 1 on.
func (f *fixture) put(n int) {
	f.t.Helper()
	for range n {
		f.stored++
		_, err := f.js.PublishAsync(f.name+"."+[]string{"b", "a"}[f.stored%2], []byte(fmt.Sprint(f.stored)))
		require.NoError(f.t, err)
	}
	<-f.js.PublishAsyncComplete()
}

func (f *fixture) stream() jetstream.Stream {
	f.t.Helper()
	s, err := f.js.Stream(f.t.Context(), f.name)
	require.NoError(f.t, err)
	return s
}

// read returns the sequences of what is read, whose other fields it compares.
func (f *fixture) read(ctx context.Context, r direct.Reading, each func(seq uint64) (more bool)) (all []uint64, err error) {
	f.t.Helper()
	for m, err := range direct.Read(ctx, f.js, f.stream(), r) {
		if err != nil {
			return all, err
		}
		require.Equal(f.t, fmt.Sprint(m.Sequence), string(m.Data))
		require.Equal(f.t, f.name+"."+[]string{"b", "a"}[m.Sequence%2], m.Subject)
		require.WithinDuration(f.t, time.Now(), m.Time, time.Hour)
		all = append(all, m.Sequence)
		if each != nil && !each(m.Sequence) {
			return all, nil
		}
	}
	return all, nil
}

func TestReadsInOrderAndByManyAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.put(1201)
	ctx := t.Context()
	before := f.js.Conn().Stats().OutMsgs
	all, err := f.read(ctx, direct.Reading{Subject: f.name + ".>"}, nil)
	require.NoError(t, err)
	require.Len(t, all, 1201)
	require.Equal(t, uint64(1), all[0])
	require.IsIncreasing(t, all)
	require.Less(t, f.js.Conn().Stats().OutMsgs-before, uint64(10), "a request for each message is slow")

	ones, err := f.read(ctx, direct.Reading{Subject: f.name + ".a", From: 1000}, nil)
	require.NoError(t, err)
	require.Len(t, ones, 101)
	some, err := f.read(ctx, direct.Reading{Subject: f.name + ".>", From: 10, Through: 12}, nil)
	require.NoError(t, err)
	require.Equal(t, []uint64{10, 11, 12}, some)
	one, err := f.read(ctx, direct.Reading{Subject: f.name + ".>"}, func(uint64) bool { return false })
	require.NoError(t, err)
	require.Equal(t, []uint64{1}, one)
	for _, nothing := range []direct.Reading{{Subject: f.name + ".c"}, {Subject: f.name + ".>", From: 5000}, {Subject: f.name + ".>", Since: time.Now().Add(time.Hour)}} {
		none, err := f.read(ctx, nothing, nil)
		require.NoError(t, err)
		require.Empty(t, none)
	}
	m, err := f.stream().GetMsg(ctx, 1190)
	require.NoError(t, err)
	late, err := f.read(ctx, direct.Reading{Subject: f.name + ".>", Since: m.Time}, nil)
	require.NoError(t, err)
	require.Contains(t, late, uint64(1190))
	require.Equal(t, uint64(1201), late[len(late)-1])
	require.Less(t, len(late), 1201)
}

func TestFollowsUntilTheContextEnds(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.put(1)
	ctx, cancel := context.WithCancel(t.Context())
	all, err := f.read(ctx, direct.Reading{Subject: f.name + ".>", Follow: true}, func(seq uint64) bool {
		switch seq {
		case 1:
			f.put(1)
		case 2:
			cancel()
		}
		return true
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []uint64{1, 2}, all)
}

// A server that is away for a moment costs no message, and shows none twice.
func TestReadsOnAfterTheServerWasAway(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	engine := f.broker.Embedded()
	f.put(600)
	all, err := f.read(t.Context(), direct.Reading{Subject: f.name + ".>"}, func(seq uint64) bool {
		if seq == 500 {
			require.NoError(t, engine.Restart())
		}
		return true
	})
	require.NoError(t, err)
	require.Len(t, all, 600)
	require.IsIncreasing(t, all)
}

func TestSaysThatAStreamAllowsNoDirectGets(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *jetstream.StreamConfig) { c.AllowDirect = false })
	_, err := f.read(t.Context(), direct.Reading{Subject: f.name + ".>"}, nil)
	require.ErrorIs(t, err, direct.ErrNotAllowed)
	require.ErrorContains(t, err, f.name)
}

// pretended is a stream whose messages a test sends.
type pretended struct {
	jetstream.Stream
	name string
}

func (p pretended) CachedInfo() *jetstream.StreamInfo {
	return &jetstream.StreamInfo{Config: jetstream.StreamConfig{Name: p.name, AllowDirect: true}}
}

// What is lost on the way is asked for again, wherever in an answer it was.
func TestAsksAgainForWhatIsLost(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	name := enginestest.Name(t) + "-pretended"
	for _, lost := range []uint64{2, 3} {
		var requests atomic.Int32
		answers, err := f.js.Conn().Subscribe("$JS.API.DIRECT.GET."+name, func(request *nats.Msg) {
			first := requests.Add(1) == 1
			var asked struct{ Seq uint64 }
			assert.NoError(t, json.Unmarshal(request.Data, &asked))
			last := uint64(0)
			for seq := asked.Seq; seq <= 3; seq++ {
				msg := nats.NewMsg(request.Reply)
				msg.Header = nats.Header{
					jetstream.SubjectHeader: {name}, jetstream.SequenceHeader: {fmt.Sprint(seq)}, jetstream.LastSequenceHeader: {fmt.Sprint(last)},
					jetstream.TimeStampHeaer: {time.Now().Format(time.RFC3339Nano)}, "Nats-Num-Pending": {fmt.Sprint(3 - seq)},
				}
				if last = seq; seq != lost || !first {
					assert.NoError(t, request.RespondMsg(msg))
				}
			}
			end := nats.NewMsg(request.Reply)
			end.Header = nats.Header{"Status": {"204"}, "Description": {"EOB"}, "Nats-Num-Pending": {"0"}, jetstream.LastSequenceHeader: {fmt.Sprint(last)}}
			assert.NoError(t, request.RespondMsg(end))
		})
		require.NoError(t, err)
		var read []uint64
		for m, err := range direct.Read(t.Context(), f.js, pretended{name: name}, direct.Reading{Subject: name}) {
			require.NoError(t, err)
			read = append(read, m.Sequence)
		}
		require.Equal(t, []uint64{1, 2, 3}, read, "without message %d at first", lost)
		require.NoError(t, answers.Unsubscribe())
		require.EqualValues(t, 2, requests.Load())
	}
}
