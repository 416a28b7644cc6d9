package audit

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/direct"
)

// Check has the parameters of Verify.
type Check struct {
	// Heads of all chains, read before Verify is called.
	Heads []*Head
	// Since skips older messages.
	Since time.Time
	// Retention is how long messages stay in the stream.
	Retention time.Duration
	Now       time.Time
	// OnFinding gets every finding; OnProgress, if set, the numbers of messages read and of
	// all.
	OnFinding  func(Finding)
	OnProgress func(read, all uint64)
}

// Finding is a result of Verify.
type Finding struct {
	// Fault: the log was changed. Else the finding is a note.
	Fault bool `json:"fault"`
	// Stream is the one concerned, Sequence the number in it; 0: none. Chain may be empty.
	Stream   string `json:"stream,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`
	Chain    string `json:"chain,omitempty"`
	Text     string `json:"text"`
}

// Report is the summary of Verify.
type Report struct {
	Messages uint64 `json:"messages"`
	Records  uint64 `json:"records"`
	Chains   int    `json:"chains"`
	// First and Last are sequence numbers in the stream; 0 where there are several streams.
	First  uint64    `json:"firstSequence,omitempty"`
	Last   uint64    `json:"lastSequence,omitempty"`
	From   time.Time `json:"from,omitzero"`
	To     time.Time `json:"to,omitzero"`
	Faults int       `json:"faults"`
	Notes  int       `json:"notes"`
}

// Verify reads the audit log and reports every gap and every change. It returns an error
// if it could not read all of it.
func Verify(ctx context.Context, js jetstream.JetStream, subjects events.Subjects, c Check) (Report, error) {
	places, missing, err := open(ctx, js, subjects)
	if err != nil {
		return Report{}, err
	}
	v := newVerifier(subjects, c)
	for _, name := range missing {
		v.find(Finding{Fault: true, Stream: name}, "the stream %s is missing: it was removed, or no worker has run with this nats.partitions", name)
	}
	var before, all uint64
	for _, p := range places {
		all += p.length()
	}
	for _, p := range places {
		info := p.stream.CachedInfo()
		v.enter(p.AuditPartition, info.State.FirstSeq)
		if !info.Config.DenyDelete || !info.Config.DenyPurge {
			v.note(0, "", "the stream %s lets messages be deleted: it was not made by a worker", p.Stream)
		}
		for s, err := range p.messages(ctx, js, c.Since) {
			if err != nil {
				return v.report, err
			}
			v.message(s)
			if c.OnProgress != nil {
				c.OnProgress(before+s.Sequence-info.State.FirstSeq+1, all)
			}
		}
		v.leave(info.State.LastSeq)
		before += p.length()
	}
	v.finish()
	if len(places) > 1 {
		v.report.First, v.report.Last = 0, 0
	}
	return v.report, nil
}

// length is how many sequence numbers the stream holds.
func (p place) length() uint64 {
	state := p.stream.CachedInfo().State
	if state.Msgs == 0 {
		return 0
	}
	return state.LastSeq - state.FirstSeq + 1
}

type verifier struct {
	check  Check
	heads  map[string]*Head
	chains map[string]*chain
	report Report

	in     events.AuditPartition // whose stream is being read
	oldest uint64                // age has removed the messages before; it goes on while others are read
	last   uint64
}

// chain is what the verifier has seen of a chain.
type chain struct {
	first    uint64 // the number of its first message
	number   uint64
	hash     Hash
	stream   string
	sequence uint64
	ended    bool
}

func newVerifier(subjects events.Subjects, c Check) *verifier {
	v := &verifier{check: c, heads: map[string]*Head{}, chains: map[string]*chain{}}
	first := subjects.AuditPartitions()[0].Stream
	for _, h := range c.Heads {
		h := *h
		h.Stream = cmp.Or(h.Stream, first)
		v.heads[h.Chain] = &h
	}
	return v
}

func (v *verifier) find(f Finding, text string, args ...any) {
	if f.Text = fmt.Sprintf(text, args...); f.Fault {
		v.report.Faults++
	} else {
		v.report.Notes++
	}
	v.check.OnFinding(f)
}

func (v *verifier) fault(sequence uint64, chain, text string, args ...any) {
	v.find(Finding{Fault: true, Stream: v.in.Stream, Sequence: sequence, Chain: chain}, text, args...)
}

func (v *verifier) note(sequence uint64, chain, text string, args ...any) {
	v.find(Finding{Stream: v.in.Stream, Sequence: sequence, Chain: chain}, text, args...)
}

// enter begins with a stream.
func (v *verifier) enter(p events.AuditPartition, oldest uint64) {
	v.in, v.oldest, v.last = p, oldest, 0
}

// leave checks the end of a stream, whose last message is last.
func (v *verifier) leave(last uint64) {
	// A stream that is empty begins after its end.
	if v.last < last && v.oldest <= last && (v.last > 0 || v.check.Since.IsZero()) {
		v.missing(max(v.last+1, v.oldest), last)
	}
}

func (v *verifier) message(s direct.Message) {
	if v.last == 0 {
		v.oldest = s.Sequence
	} else if s.Sequence != v.last+1 {
		v.missing(v.last+1, s.Sequence-1)
	}
	v.last = s.Sequence
	if v.report.Messages == 0 {
		v.report.First, v.report.From = s.Sequence, s.Time
	}
	v.report.Messages++
	v.report.Last = s.Sequence
	if s.Time.Before(v.report.From) {
		v.report.From = s.Time
	}
	if s.Time.After(v.report.To) {
		v.report.To = s.Time
	}
	m, err := decode(s.Data)
	if err != nil {
		v.fault(s.Sequence, "", "not an audit message: %v", err)
		return
	}
	v.report.Records += uint64(len(m.Records))
	if s.Subject != v.in.Chain(m.Chain) {
		v.fault(s.Sequence, m.Chain, "published under another chain's subject")
	}
	hash := hashOf(s.Data)
	c := v.chains[m.Chain]
	if c == nil {
		c = &chain{first: m.Number}
		v.chains[m.Chain] = c
		v.begins(s, m)
	} else {
		v.follows(s, m, c, hash)
	}
	if h := v.heads[m.Chain]; h != nil && h.Number == m.Number && h.Hash != hash.String() {
		v.fault(s.Sequence, m.Chain, "message %d is not the one whose hash is kept in MongoDB: it was changed", m.Number)
	}
	c.number, c.hash, c.stream, c.sequence = m.Number, hash, v.in.Stream, s.Sequence
	c.ended = c.ended || m.Records[len(m.Records)-1].Action == End
}

func (v *verifier) missing(from, to uint64) {
	if from == to {
		v.fault(from, "", "it is missing from the stream")
		return
	}
	v.fault(from, "", "the messages from here to %d are missing from the stream", to)
}

// begins checks the first message seen of a chain.
func (v *verifier) begins(s direct.Message, m Message) {
	switch {
	case m.Number == 1:
		if m.Previous != origin(m.Chain).String() || m.After != 0 || m.Records[0].Action != Begin {
			v.fault(s.Sequence, m.Chain, "the chain does not begin as chains do")
		}
	case !v.check.Since.IsZero():
		// earlier messages are skipped
	case m.After == 0 || m.After >= v.oldest:
		v.fault(s.Sequence, m.Chain, "the chain begins with message %d: those before are missing", m.Number)
	case v.heads[m.Chain] != nil && v.kept(v.heads[m.Chain], v.heads[m.Chain].Begun):
		v.fault(s.Sequence, m.Chain, "the chain begins with message %d: those before were removed though they are not old enough", m.Number)
	}
}

// follows checks a message against the one before it in its chain.
func (v *verifier) follows(s direct.Message, m Message, c *chain, hash Hash) {
	switch {
	case c.stream != v.in.Stream:
		v.fault(s.Sequence, m.Chain, "message %d lies in another stream than message %d, which is in %s", m.Number, c.number, c.stream)
	case m.Number == c.number && hash == c.hash:
		// The acknowledgement was lost for longer than the window for duplicates.
		v.note(s.Sequence, m.Chain, "message %d was stored twice", m.Number)
		return
	case m.Number <= c.number:
		v.fault(s.Sequence, m.Chain, "message %d comes after message %d", m.Number, c.number)
	case m.Number > c.number+1:
		v.fault(s.Sequence, m.Chain, "message %d follows message %d: those between are missing", m.Number, c.number)
	case m.Previous != c.hash.String():
		v.fault(s.Sequence, m.Chain, "message %d does not carry the hash of message %d at %d: one of the two was changed", m.Number, c.number, c.sequence)
	case m.After != c.sequence:
		v.fault(s.Sequence, m.Chain, "message %d was written after one at %d, but its predecessor lies at %d: they were stored again", m.Number, m.After, c.sequence)
	}
	if c.ended {
		v.fault(s.Sequence, m.Chain, "message %d comes after the end of the chain", m.Number)
	}
}

// kept reports whether a message stored at a time must still be there, with a margin for
// clocks and for the delay of removal by age.
func (v *verifier) kept(h *Head, at time.Time) bool {
	until := at.Add(min(v.check.Retention, h.PurgeAt.Sub(h.At)))
	return !at.Before(v.check.Since) && v.check.Now.Add(min(time.Hour, v.check.Retention/10)).Before(until)
}

// finish checks the ends of the chains.
func (v *verifier) finish() {
	v.report.Chains = len(v.chains)
	for _, name := range slices.Sorted(maps.Keys(v.heads)) {
		h, c := v.heads[name], v.chains[name]
		switch {
		case c != nil && c.stream != h.Stream:
			v.find(Finding{true, c.stream, c.sequence, name, ""}, "the chain is in another stream than %s, where MongoDB knows it", h.Stream)
		case !v.kept(h, h.At):
		case c == nil:
			v.find(Finding{true, h.Stream, h.Sequence, name, ""}, "the chain is missing: MongoDB knows that it had %d messages", h.Number)
		case c.number < h.Number:
			v.find(Finding{true, c.stream, c.sequence, name, ""}, "the chain ends with message %d, but MongoDB knows that it had %d: its end was cut off", c.number, h.Number)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.chains)) {
		c := v.chains[name]
		if v.heads[name] == nil {
			v.find(Finding{false, c.stream, c.sequence, name, ""}, "MongoDB knows nothing of this chain: its end can't be checked")
		}
		if !c.ended {
			v.find(Finding{false, c.stream, c.sequence, name, ""}, "the chain has no end: its worker still runs, or was killed")
		}
	}
}
