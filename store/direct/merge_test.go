package direct_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store/direct"
)

// several returns further streams beside that of the fixture, and a function that stores a
// message in one of them.
func (f *fixture) several(n int) (all []jetstream.Stream, put func(in int, text string)) {
	f.t.Helper()
	for i := range n {
		s, err := f.js.CreateStream(f.t.Context(), jetstream.StreamConfig{Name: fmt.Sprintf("%s_%d", f.name, i), Subjects: []string{fmt.Sprintf("%s_%d.>", f.name, i)}, AllowDirect: true})
		require.NoError(f.t, err)
		all = append(all, s)
	}
	return all, func(in int, text string) {
		f.t.Helper()
		_, err := f.js.Publish(f.t.Context(), fmt.Sprintf("%s_%d.a", f.name, in), []byte(text))
		require.NoError(f.t, err)
	}
}

func TestReadsSeveralStreamsInTheOrderOfTime(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	all, put := f.several(4) // one of them stays empty
	var want []string
	for i, in := range []int{2, 0, 0, 1, 2, 1, 1, 0, 2, 2} {
		want = append(want, fmt.Sprint(i))
		put(in, fmt.Sprint(i))
	}
	everything := func(jetstream.Stream) direct.Reading { return direct.Reading{Subject: "*.a"} }
	read := func(enough int) (got []string) {
		for m, err := range direct.ReadAll(t.Context(), f.js, all, everything) {
			require.NoError(t, err)
			if got = append(got, string(m.Data)); len(got) == enough {
				break
			}
		}
		return got
	}
	require.Equal(t, want, read(0))
	require.Equal(t, want[:3], read(3))
	for m, err := range direct.ReadAll(t.Context(), f.js, nil, everything) {
		t.Fatal("there is no stream", m, err)
	}
}

// All streams together read ahead what two do.
func TestSeveralStreamsShareWhatIsReadAhead(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	all, put := f.several(8)
	asked, err := f.js.Conn().SubscribeSync("$JS.API.DIRECT.GET." + f.name + "_3")
	require.NoError(t, err)
	for in := range all {
		put(in, "here")
	}
	read := map[string]int{}
	for m, err := range direct.ReadAll(t.Context(), f.js, all, func(jetstream.Stream) direct.Reading { return direct.Reading{Subject: "*.a"} }) {
		require.NoError(t, err)
		read[m.Stream]++
	}
	require.Len(t, read, 8, "each message names its stream")
	msg, err := asked.NextMsg(5 * time.Second)
	require.NoError(t, err)
	var request struct {
		Bytes int `json:"max_bytes"`
	}
	require.NoError(t, json.Unmarshal(msg.Data, &request))
	require.Equal(t, 1<<20, request.Bytes)
}

func TestFollowsSeveralStreams(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	all, put := f.several(3)
	for i, in := range []int{1, 0, 1} {
		put(in, fmt.Sprint(i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	for m, err := range direct.ReadAll(ctx, f.js, all, func(jetstream.Stream) direct.Reading {
		return direct.Reading{Subject: "*.a", Since: time.Now().Add(-time.Hour), Follow: true}
	}) {
		if err != nil {
			require.ErrorIs(t, err, context.Canceled)
			break
		}
		got = append(got, string(m.Data))
		switch len(got) {
		case 3:
			require.Equal(t, []string{"0", "1", "2"}, got, "what was there, in order")
			put(2, "3")
		case 4:
			put(1, "4")
		case 5:
			cancel()
		}
	}
	require.Equal(t, []string{"0", "1", "2", "3", "4"}, got, "each once")
	for _, err := range direct.ReadAll(t.Context(), f.js, all, func(jetstream.Stream) direct.Reading { return direct.Reading{Subject: "*.a", Follow: true} }) {
		require.NoError(t, err)
		break // whoever wants no more waits for none
	}
}

// A stream that can't be read any more ends it, rather than be missed by nobody.
func TestOneStreamThatIsGoneEndsIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	for _, follow := range []bool{false, true} {
		all, put := f.several(2)
		put(0, "here")
		if !follow {
			require.NoError(t, f.js.DeleteStream(t.Context(), f.name+"_1"))
		}
		var last error
		for m, err := range direct.ReadAll(t.Context(), f.js, all, func(jetstream.Stream) direct.Reading { return direct.Reading{Subject: "*.a", Follow: follow} }) {
			assert.NoError(t, last, "it ends after an error")
			if last = err; err == nil {
				require.Equal(t, "here", string(m.Data))
				require.NoError(t, f.js.DeleteStream(t.Context(), f.name+"_1"))
			}
		}
		require.ErrorContains(t, last, "reading stream "+f.name+"_1: ")
		require.NoError(t, f.js.DeleteStream(t.Context(), f.name+"_0"))
	}
}

// NATS adds the place of a message to its headers, which have another place already if
// another stream has passed it on.
func TestReadsWhatAnotherStreamPassedOn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	for n := range 3 {
		m := nats.NewMsg(f.name + "." + []string{"a", "b"}[n%2])
		m.Data = fmt.Append(nil, n+1)
		for name, value := range map[string]string{jetstream.StreamHeader: "OTHER", jetstream.SubjectHeader: "other", jetstream.SequenceHeader: "77", jetstream.LastSequenceHeader: "76", jetstream.TimeStampHeaer: "2020-01-01T00:00:00Z"} {
			m.Header.Set(name, value)
		}
		_, err := f.js.PublishMsg(t.Context(), m)
		require.NoError(t, err)
	}
	all, err := f.read(t.Context(), direct.Reading{Subject: f.name + ".>"}, nil)
	require.NoError(t, err)
	require.Equal(t, []uint64{1, 2, 3}, all)
}
