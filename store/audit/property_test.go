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

// stream draws chains that were written in turns, as they lie in a stream, with
// their heads.
func stream(t *rapid.T) (all []direct.Message, heads []*Head) {
	chains := rapid.IntRange(1, 3).Draw(t, "chains")
	type state struct {
		previous Hash
		head     *Head
	}
	states := make([]state, chains)
	for i := range states {
		name := fmt.Sprint("chain-", i)
		states[i] = state{origin(name), &Head{Chain: name, Begun: at, At: at, PurgeAt: at.Add(24 * time.Hour)}}
	}
	for _, i := range rapid.SliceOfN(rapid.IntRange(0, chains-1), 1, 12).Draw(t, "turns") {
		s := &states[i]
		record := Record{At: at, Action: HandedOut, User: fmt.Sprint("user-", len(all))}
		if s.head.Number == 0 {
			record = Record{At: at, Action: Begin}
			heads = append(heads, s.head)
		}
		data, err := record.encode(maxBatch)
		if err != nil {
			t.Fatal(err)
		}
		body := appendMessage(nil, s.head.Chain, "worker", s.head.Number+1, s.previous, s.head.Sequence, []*entry{{data: data}})
		s.previous = hashOf(body)
		s.head.Number, s.head.Hash, s.head.Sequence = s.head.Number+1, s.previous.String(), uint64(len(all)+1)
		all = append(all, direct.Message{Sequence: uint64(len(all) + 1), Time: at, Subject: events.Subjects{}.Audit(s.head.Chain), Data: body})
	}
	return all, heads
}

func faultsOf(all []direct.Message, heads []*Head, last uint64) (faults []Finding) {
	v := newVerifier(events.Subjects{}, Check{Heads: heads, Retention: 24 * time.Hour, Now: at, OnFinding: func(f Finding) {
		if f.Fault {
			faults = append(faults, f)
		}
	}}, 1)
	for _, s := range all {
		v.message(s)
	}
	v.finish(last)
	return faults
}

func TestEveryChangeIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all, heads := stream(t)
		last := uint64(len(all))
		if faults := faultsOf(all, heads, last); len(faults) > 0 {
			t.Fatalf("nothing was changed: %+v", faults)
		}
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
		if len(faultsOf(tampered, heads, last)) == 0 {
			t.Fatal("not found")
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
		heads := []*Head{{Chain: "chain", Number: 1, Hash: hashOf(good).String(), Sequence: 1, Begun: at, At: at, PurgeAt: at.Add(24 * time.Hour)}}
		faults := faultsOf([]direct.Message{{Sequence: 1, Time: at, Subject: events.Subjects{}.Audit("chain"), Data: body}}, heads, 1)
		if (len(faults) == 0) != bytes.Equal(body, good) {
			t.Fatalf("%q: %+v", body, faults)
		}
	})
}
