package audit

import (
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
	// Sequence number in the stream; 0: none. Chain may be empty.
	Sequence uint64 `json:"sequence,omitempty"`
	Chain    string `json:"chain,omitempty"`
	Text     string `json:"text"`
}

// Report is the summary of Verify.
type Report struct {
	Messages uint64    `json:"messages"`
	Records  uint64    `json:"records"`
	Chains   int       `json:"chains"`
	First    uint64    `json:"firstSequence,omitempty"`
	Last     uint64    `json:"lastSequence,omitempty"`
	From     time.Time `json:"from,omitzero"`
	To       time.Time `json:"to,omitzero"`
	Faults   int       `json:"faults"`
	Notes    int       `json:"notes"`
}

// Verify reads the audit log and reports every gap and every change. It returns an error
// if it could not read all of it.
func Verify(ctx context.Context, js jetstream.JetStream, subjects events.Subjects, c Check) (Report, error) {
	stream, err := open(ctx, js, subjects)
	if err != nil {
		return Report{}, err
	}
	info := stream.CachedInfo()
	v := newVerifier(subjects, c, info.State.FirstSeq)
	if !info.Config.DenyDelete || !info.Config.DenyPurge {
		v.note(0, "", "the stream %s lets messages be deleted: it was not made by a worker", info.Config.Name)
	}
	err = read(ctx, js, stream, subjects, c.Since, func(s direct.Message) error {
		v.message(s)
		if c.OnProgress != nil {
			c.OnProgress(s.Sequence-info.State.FirstSeq+1, info.State.LastSeq-info.State.FirstSeq+1)
		}
		return nil
	})
	if err != nil {
		return v.report, err
	}
	v.finish(info.State.LastSeq)
	return v.report, nil
}

type verifier struct {
	subjects events.Subjects
	check    Check
	heads    map[string]*Head
	oldest   uint64 // age has removed the messages before
	last     uint64
	chains   map[string]*chain
	report   Report
}

// chain is what the verifier has seen of a chain.
type chain struct {
	first    uint64 // the number of its first message
	number   uint64
	hash     Hash
	sequence uint64
	ended    bool
}

func newVerifier(subjects events.Subjects, c Check, oldest uint64) *verifier {
	v := &verifier{subjects: subjects, check: c, oldest: oldest, heads: map[string]*Head{}, chains: map[string]*chain{}}
	for _, h := range c.Heads {
		v.heads[h.Chain] = h
	}
	return v
}

func (v *verifier) fault(sequence uint64, chain, text string, args ...any) {
	v.report.Faults++
	v.check.OnFinding(Finding{true, sequence, chain, fmt.Sprintf(text, args...)})
}

func (v *verifier) note(sequence uint64, chain, text string, args ...any) {
	v.report.Notes++
	v.check.OnFinding(Finding{false, sequence, chain, fmt.Sprintf(text, args...)})
}

func (v *verifier) message(s direct.Message) {
	if v.last > 0 && s.Sequence != v.last+1 {
		v.missing(v.last+1, s.Sequence-1)
	}
	v.last = s.Sequence
	if v.report.Messages == 0 {
		v.report.First, v.report.From = s.Sequence, s.Time
	}
	v.report.Messages++
	v.report.Last, v.report.To = s.Sequence, s.Time
	m, err := decode(s.Data)
	if err != nil {
		v.fault(s.Sequence, "", "not an audit message: %v", err)
		return
	}
	v.report.Records += uint64(len(m.Records))
	if s.Subject != v.subjects.Audit(m.Chain) {
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
	c.number, c.hash, c.sequence = m.Number, hash, s.Sequence
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

// finish checks the ends of the chains and of the stream, whose last message is last.
func (v *verifier) finish(last uint64) {
	v.report.Chains = len(v.chains)
	// A stream that is empty begins after its end.
	if v.last < last && v.oldest <= last && (v.last > 0 || v.check.Since.IsZero()) {
		v.missing(max(v.last+1, v.oldest), last)
	}
	for _, name := range slices.Sorted(maps.Keys(v.heads)) {
		h, c := v.heads[name], v.chains[name]
		switch {
		case !v.kept(h, h.At):
		case c == nil:
			v.fault(h.Sequence, name, "the chain is missing: MongoDB knows that it had %d messages", h.Number)
		case c.number < h.Number:
			v.fault(c.sequence, name, "the chain ends with message %d, but MongoDB knows that it had %d: its end was cut off", c.number, h.Number)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.chains)) {
		c := v.chains[name]
		if v.heads[name] == nil {
			v.note(c.sequence, name, "MongoDB knows nothing of this chain: its end can't be checked")
		}
		if !c.ended {
			v.note(c.sequence, name, "the chain has no end: its worker still runs, or was killed")
		}
	}
}
