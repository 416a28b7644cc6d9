package audit

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/direct"
)

var at = time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)

// lies is what lies in each stream of an installation.
type lies struct {
	events.Subjects
	messages [][]direct.Message // by stream
	heads    []*Head
}

// written draws chains that were written in turns, as they lie in streams, with their
// heads.
func written(t *rapid.T) lies {
	l := lies{Subjects: events.Subjects{Partitions: rapid.IntRange(1, 3).Draw(t, "streams")}}
	l.messages = make([][]direct.Message, l.Partitions)
	places := map[string]int{}
	for n, p := range l.AuditPartitions() {
		places[p.Stream] = n
	}
	chains := rapid.IntRange(1, 5).Draw(t, "chains")
	type state struct {
		previous Hash
		head     *Head
	}
	states := make([]state, chains)
	for i := range states {
		name := fmt.Sprint("chain-", i)
		states[i] = state{origin(name), &Head{Chain: name, Stream: l.AuditPartition(name).Stream, Begun: at, At: at, PurgeAt: at.Add(24 * time.Hour)}}
	}
	for turn, i := range rapid.SliceOfN(rapid.IntRange(0, chains-1), 1, 12).Draw(t, "turns") {
		s := &states[i]
		all := &l.messages[places[s.head.Stream]]
		record := Record{At: at, Action: HandedOut, User: fmt.Sprint("user-", turn)}
		if s.head.Number == 0 {
			record = Record{At: at, Action: Begin}
			l.heads = append(l.heads, s.head)
		}
		data, err := record.encode(maxBatch)
		if err != nil {
			t.Fatal(err)
		}
		body := appendMessage(nil, s.head.Chain, "worker", s.head.Number+1, s.previous, s.head.Sequence, []*entry{{data: data}})
		s.previous = hashOf(body)
		s.head.Number, s.head.Hash, s.head.Sequence = s.head.Number+1, s.previous.String(), uint64(len(*all)+1)
		*all = append(*all, direct.Message{Sequence: uint64(len(*all) + 1), Time: at, Subject: l.AuditPartition(s.head.Chain).Chain(s.head.Chain), Data: body})
	}
	return l
}

// faults verifies; tampered and last are what is found in one of the streams.
func (l lies) faults(which int, tampered []direct.Message, last uint64) (faults []Finding) {
	v := newVerifier(l.Subjects, Check{Heads: l.heads, Retention: 24 * time.Hour, Now: at, OnFinding: func(f Finding) {
		if f.Fault {
			faults = append(faults, f)
		}
	}})
	for n, p := range l.AuditPartitions() {
		v.enter(p, 1)
		messages, end := l.messages[n], uint64(len(l.messages[n]))
		if n == which {
			messages, end = tampered, last
		}
		for _, s := range messages {
			v.message(s)
		}
		v.leave(end)
	}
	v.finish()
	return faults
}

func TestEveryChangeIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := written(t)
		if faults := l.faults(-1, nil, 0); len(faults) > 0 {
			t.Fatalf("nothing was changed: %+v", faults)
		}
		var filled []int
		for n, all := range l.messages {
			if len(all) > 0 {
				filled = append(filled, n)
			}
		}
		which := rapid.SampledFrom(filled).Draw(t, "stream")
		all := l.messages[which]
		last := uint64(len(all))
		i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
		tampered := slices.Clone(all)
		switch rapid.SampledFrom([]string{"delete", "cut out", "change", "cut off"}).Draw(t, "how") {
		case "delete":
			tampered = slices.Delete(tampered, i, i+1)
		case "cut out": // and everything after it stored anew
			tampered = slices.Delete(tampered, i, i+1)
			for j := range tampered {
				tampered[j].Sequence = uint64(j + 1)
			}
			last--
		case "cut off":
			tampered, last = tampered[:i], uint64(i)
		case "change":
			body := bytes.Clone(tampered[i].Data)
			k := rapid.IntRange(0, len(body)-1).Draw(t, "byte")
			body[k] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
			tampered[i].Data = body
		}
		faults := l.faults(which, tampered, last)
		if len(faults) == 0 {
			t.Fatal("not found")
		}
		for _, f := range faults {
			if f.Stream != l.AuditPartitions()[which].Stream {
				t.Fatalf("%+v is not where the change is", f)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	data, err := Record{At: at, Action: Begin}.encode(maxBatch)
	require.NoError(f, err)
	good := appendMessage(nil, "chain", "worker", 1, origin("chain"), 0, []*entry{{data: data}})
	f.Add(good)
	f.Add([]byte(`{"chain":"chain","n":18446744073709551615,"prev":"","after":-1,"records":[]}`))
	f.Add([]byte(`{"chain":"a.*.>","n":1,"records":[null]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := decode(body)
		if err == nil && (m.Chain == "" || m.Number == 0 || len(m.Records) == 0) {
			t.Fatalf("accepted %q", body)
		}
		// Whatever it is, it is no part of a log that knows nothing of it.
		l := lies{messages: make([][]direct.Message, 1), heads: []*Head{{Chain: "chain", Number: 1, Hash: hashOf(good).String(), Sequence: 1, Begun: at, At: at, PurgeAt: at.Add(24 * time.Hour)}}}
		faults := l.faults(0, []direct.Message{{Sequence: 1, Time: at, Subject: l.AuditPartition("chain").Chain("chain"), Data: body}}, 1)
		if (len(faults) == 0) != bytes.Equal(body, good) {
			t.Fatalf("%q: %+v", body, faults)
		}
	})
}
