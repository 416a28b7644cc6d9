package parts_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/store/parts"
)

const (
	maxPayload = 16 << 10
	partSize   = maxPayload / 2
	name       = "KEPT"
	subject    = "kept.part"
	owner      = "owner"
)

// kept is a broker whose largest message is small, with a stream of parts.
type kept struct {
	t      *testing.T
	js     jetstream.JetStream
	stream jetstream.Stream
}

func newKept(t *testing.T, configure func(*jetstream.StreamConfig)) *kept {
	t.Helper()
	broker := enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) { o.MaxPayload = maxPayload }})
	nc, err := nats.Connect(broker.URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	cfg := jetstream.StreamConfig{Name: name, Subjects: []string{"kept.>"}}
	if configure != nil {
		configure(&cfg)
	}
	stream, err := js.CreateStream(t.Context(), cfg)
	require.NoError(t, err)
	return &kept{t, js, stream}
}

// left returns how many messages the stream holds.
func (k *kept) left() int {
	k.t.Helper()
	info, err := k.stream.Info(k.t.Context())
	require.NoError(k.t, err)
	return int(info.State.Msgs)
}

func (k *kept) publish(to string, header nats.Header) uint64 {
	k.t.Helper()
	ack, err := k.js.PublishMsg(k.t.Context(), &nats.Msg{Subject: to, Header: header, Data: []byte("another")})
	require.NoError(k.t, err)
	return ack.Sequence
}

// numbered returns bytes no stretch of which is like another.
func numbered(size int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.Bytes()[:size]
}

func TestWhatIsWrittenInPartsIsReadAsItWas(t *testing.T) {
	k := newKept(t, nil)
	for _, c := range []struct{ limit, size, want int }{
		{-1, 0, 0},
		{-1, 1, 1},
		{-1, partSize - 1, 1},
		{-1, partSize, 1},
		{-1, partSize + 1, 2},
		{-1, maxPayload, 2},
		{-1, 10*partSize + 1, 11},
		// A stream may take less than the server does.
		{partSize, partSize, 2},
		{partSize, maxPayload, 4},
		{2 << 10, 3000, 3},
		{2 << 10, 1, 1},
	} {
		t.Run(fmt.Sprintf("%d bytes, stream limit %d", c.size, c.limit), func(t *testing.T) {
			cfg := k.stream.CachedInfo().Config
			cfg.MaxMsgSize = int32(c.limit)
			_, err := k.js.UpdateStream(t.Context(), cfg)
			require.NoError(t, err)
			before := k.left()
			stranger := k.publish(subject, nil)
			data := numbered(c.size)
			sequences, err := parts.Write(t.Context(), k.js, subject, owner, time.Now(), data)
			require.NoError(t, err)
			require.Len(t, sequences, c.want)
			read, err := parts.Read(t.Context(), k.stream, owner, sequences)
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, read))

			require.NoError(t, parts.Delete(t.Context(), k.stream, owner, append(sequences, stranger)))
			require.Equal(t, before+1, k.left(), "the parts are gone, and nothing else is")
			require.NoError(t, parts.Delete(t.Context(), k.stream, owner, sequences), "they are gone already")
			if c.want > 0 {
				_, err = parts.Read(t.Context(), k.stream, owner, sequences)
				require.ErrorIs(t, err, parts.ErrMissing)
			}
		})
	}
}

// TestWhatCannotBeWrittenWholeLeavesNothing: parts that no description will ever
// name hold tokens, too.
func TestWhatCannotBeWrittenWholeLeavesNothing(t *testing.T) {
	for name, configure := range map[string]func(*jetstream.StreamConfig){
		"it holds no more messages": func(c *jetstream.StreamConfig) { c.MaxMsgs, c.Discard = 3, jetstream.DiscardNew },
		"it holds no more bytes":    func(c *jetstream.StreamConfig) { c.MaxBytes, c.Discard = 20<<10, jetstream.DiscardNew },
		"no part is small enough":   func(c *jetstream.StreamConfig) { c.MaxMsgSize = 64 },
		"no stream listens":         func(c *jetstream.StreamConfig) { c.Subjects = []string{"kept.other"} },
	} {
		t.Run(name, func(t *testing.T) {
			k := newKept(t, configure)
			sequences, err := parts.Write(t.Context(), k.js, subject, owner, time.Now(), numbered(4*partSize))
			require.Error(t, err)
			require.Empty(t, sequences)
			require.Zero(t, k.left())
		})
	}
}

func TestReadTakesNothingElseForAPart(t *testing.T) {
	k := newKept(t, nil)
	mine, err := parts.Write(t.Context(), k.js, subject, owner, time.Now(), numbered(3*partSize))
	require.NoError(t, err)
	others, err := parts.Write(t.Context(), k.js, subject, "another", time.Now(), numbered(partSize))
	require.NoError(t, err)
	nobodys := k.publish(subject, nil)
	gone, err := parts.Write(t.Context(), k.js, subject, owner, time.Now(), numbered(partSize))
	require.NoError(t, err)
	require.NoError(t, k.stream.DeleteMsg(t.Context(), gone[0]))
	for what, sequence := range map[string]uint64{
		"another's": others[0], "nobody's": nobodys, "deleted": gone[0], "not written yet": gone[0] + 100,
		"the first there is": 0, // as NATS understands it
	} {
		_, err := parts.Read(t.Context(), k.stream, owner, []uint64{mine[0], sequence, mine[2]})
		require.ErrorIs(t, err, parts.ErrMissing, what)
	}
	before := k.left()
	require.NoError(t, parts.Delete(t.Context(), k.stream, owner, []uint64{0, others[0], nobodys, gone[0], mine[1]}))
	require.Equal(t, before-1, k.left())
	_, err = parts.Read(t.Context(), k.stream, owner, []uint64{mine[0], mine[2]})
	require.NoError(t, err)
}

func TestPartsAreCountedApart(t *testing.T) {
	k := newKept(t, nil)
	for _, user := range []string{"a", "b"} {
		_, err := parts.Write(t.Context(), k.js, "kept."+user+".part", owner, time.Now(), numbered(3*partSize))
		require.NoError(t, err)
		k.publish("kept."+user+".letter", nil)
	}
	whole, err := parts.CountWithoutParts(t.Context(), k.stream, "kept.*.part")
	require.NoError(t, err)
	require.EqualValues(t, 2, whole)
}

func TestAPartKeepsTheTimeOfItsMessage(t *testing.T) {
	k := newKept(t, nil)
	at := time.Date(2031, 5, 6, 7, 8, 9, 123456789, time.FixedZone("", 3600))
	sequences, err := parts.Write(t.Context(), k.js, subject, owner, at, []byte("a part"))
	require.NoError(t, err)
	msg, err := k.stream.GetMsg(t.Context(), sequences[0])
	require.NoError(t, err)
	require.True(t, at.Equal(parts.Stored(msg)))

	msg, err = k.stream.GetMsg(t.Context(), k.publish(subject, nats.Header{"Latchkey-Stored-At": {"yesterday"}}))
	require.NoError(t, err)
	require.Equal(t, msg.Time, parts.Stored(msg))
}

func TestWhatARefusalIs(t *testing.T) {
	api := func(code jetstream.ErrorCode) error { return &jetstream.APIError{ErrorCode: code} }
	for err, want := range map[error]struct{ tooLarge, refused bool }{
		nil:                      {},
		errors.New("a fault"):    {},
		nats.ErrTimeout:          {},
		nats.ErrConnectionClosed: {},
		nats.ErrMaxPayload:       {true, true},
		api(10054):               {true, true},
		api(10077):               {false, true},
	} {
		if err != nil {
			err = fmt.Errorf("publishing: %w", err)
		}
		require.Equal(t, want.tooLarge, parts.TooLarge(err), "%v", err)
		require.Equal(t, want.refused, parts.Refused(err), "%v", err)
	}
}

func TestWhatFitsLeavesRoomForHeaders(t *testing.T) {
	k := newKept(t, nil)
	require.True(t, parts.Fits(k.js, partSize))
	require.False(t, parts.Fits(k.js, partSize+1))
	header := nats.Header{"Header": {string(numbered(maxPayload/2 - 100))}}
	_, err := k.js.PublishMsg(t.Context(), &nats.Msg{Subject: subject, Header: header, Data: numbered(partSize)})
	require.NoError(t, err)
}
