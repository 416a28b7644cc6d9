package audit_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/audit"
)

// withAndWithoutPrefix runs a test on three streams.
func withAndWithoutPrefix(t *testing.T, test func(*fixture)) {
	t.Run("with a prefix", func(t *testing.T) { test(newFixture(t, enginestest.NATS(t).URL(), 3)) })
	t.Run("without", func(t *testing.T) {
		test(fixtureOf(t, enginestest.NATSWith(t, engines.NATSOptions{}).URL(), events.Subjects{Partitions: 3}))
	})
}

// three starts a chain in each of three streams.
func (f *fixture) three() (logs []*audit.Log) {
	f.t.Helper()
	for f.in = range 3 {
		l := f.log()
		f.begun(l)
		logs = append(logs, l)
	}
	f.in = 0
	return logs
}

// inTurns writes a record after the other, and returns the users that they name, in order.
func (f *fixture) inTurns(logs ...*audit.Log) (users []string) {
	f.t.Helper()
	for n := range 12 {
		user := string(rune('a' + n))
		require.NoError(f.t, logs[n*5%len(logs)].Write(f.t.Context(), handedOut(user)))
		users = append(users, user)
	}
	return users
}

// users returns the users that the log names, in its order.
func (f *fixture) users() (users []string) {
	f.t.Helper()
	for _, e := range f.records() {
		if e.User != "" {
			users = append(users, e.User)
		}
	}
	return users
}

// clean requires a log without faults and notes.
func (f *fixture) clean(chains int) {
	f.t.Helper()
	report, faults, notes := f.verify()
	require.Empty(f.t, faults)
	require.Empty(f.t, notes)
	require.Equal(f.t, chains, report.Chains)
}

func TestStreamsShareTheLog(t *testing.T) {
	withAndWithoutPrefix(t, func(f *fixture) {
		t := f.t
		logs := f.three()
		written := f.inTurns(logs...)
		for _, l := range logs {
			f.stop(l)
		}
		require.Equal(t, written, f.users(), "in the order in which they were stored")
		f.clean(3)

		in := map[string]string{} // chains, by stream
		last := map[string]uint64{}
		for _, e := range f.records() {
			require.Equal(t, f.subjects.AuditPartition(e.Chain).Stream, e.Stream)
			require.GreaterOrEqual(t, e.Sequence, last[e.Stream])
			in[e.Stream], last[e.Stream] = e.Chain, e.Sequence
		}
		require.Len(t, in, 3)
		for stream, chain := range in {
			require.Equal(t, stream, f.heads[chain].Stream)
			require.Equal(t, last[stream], f.heads[chain].Sequence)
		}
		report, _, _ := f.verify()
		require.EqualValues(t, 12+6, report.Records)
		require.EqualValues(t, 12+6, report.Messages)
		require.Zero(t, report.First+report.Last, "there is no such number for several streams")
		all := f.records()
		require.WithinRange(t, report.From, all[0].At.Add(-time.Minute), report.To)
		require.Equal(t, audit.Begin, all[0].Action)
		require.Equal(t, audit.End, all[len(all)-1].Action)

		var progress []uint64
		f.verify(func(c *audit.Check) {
			c.OnProgress = func(read, all uint64) {
				require.EqualValues(t, 18, all)
				progress = append(progress, read)
			}
		})
		require.True(t, slices.IsSorted(progress))
		require.EqualValues(t, 18, progress[len(progress)-1])

		// Whoever has seen enough reads no further.
		enough := errors.New("enough")
		require.ErrorIs(t, audit.All(f.within(patience), f.js, f.subjects, time.Time{}, func(audit.Entry) error { return enough }), enough)
		over, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, audit.All(over, f.js, f.subjects, time.Time{}, func(audit.Entry) error { return nil }), context.Canceled)
	})
}

// A chain can't be moved to another stream, nor part of it.
func TestAChainIsInOneStream(t *testing.T) {
	f := newFixture(t, enginestest.NATS(t).URL(), 2)
	_, chain := f.write()
	all := f.messages()
	from, to := f.subjects.AuditPartitions()[0], f.subjects.AuditPartitions()[1]
	for stay, want := range []string{
		"the chain is in another stream than " + from.Stream + ", where MongoDB knows it",
		"message 2 lies in another stream than message 1, which is in " + from.Stream,
	} {
		var rest, moved []message
		n := 0
		for _, m := range all {
			if m.subject == from.Chain(chain) {
				if n++; n > stay {
					moved = append(moved, message{subject: to.Chain(chain), body: m.body})
					continue
				}
			}
			rest = append(rest, m)
		}
		f.in = 0
		f.rebuild(rest)
		f.in = 1
		f.rebuild(moved)
		_, faults, _ := f.verify()
		require.Contains(t, faults, want)
	}
}

// While the number of streams changes, and after it, no record is lost, and none that is
// missing goes unnoticed.
func TestTheNumberOfStreamsChanges(t *testing.T) {
	withAndWithoutPrefix(t, func(f *fixture) {
		t := f.t
		f.subjects.Partitions = 1
		one := f.log()
		f.subjects.Partitions = 3
		logs := append(f.three(), one) // old and new side by side
		written := f.inTurns(logs...)
		require.Equal(t, written, f.users())
		for _, l := range logs {
			f.stop(l)
		}
		f.clean(4)

		// Fewer: the older streams stay, and are read.
		f.subjects.Partitions = 1
		f.ensure()
		require.Equal(t, written, f.users())
		f.clean(4)
		later := f.log()
		written = append(written, f.inTurns(later)...)
		f.stop(later)
		require.Equal(t, written, f.users())
		f.clean(5)

		// More again.
		f.subjects.Partitions = 3
		f.ensure()
		require.Equal(t, written, f.users())
		f.clean(5)

		// What is done to an older stream is found, though another before it is gone.
		f.in = 2
		all := f.messages()
		all[1].gone = true
		f.rebuild(all)
		f.in = 1
		f.remove()
		f.subjects.Partitions = 1
		var found []audit.Finding
		f.verify(func(c *audit.Check) {
			add := c.OnFinding
			c.OnFinding = func(finding audit.Finding) {
				found = append(found, finding)
				add(finding)
			}
		})
		f.subjects.Partitions = 3
		parts := f.subjects.AuditPartitions()
		head := f.heads[logs[1].Chain()]
		require.Contains(t, found, audit.Finding{Fault: true, Stream: parts[2].Stream, Sequence: 2, Text: "it is missing from the stream"})
		require.Contains(t, found, audit.Finding{Fault: true, Stream: parts[1].Stream, Sequence: head.Sequence, Chain: head.Chain, Text: "the chain is missing: MongoDB knows that it had 5 messages"})
	})
}

// A stream that should be there is missed, and the others are read.
func TestAMissingStreamIsNamed(t *testing.T) {
	withAndWithoutPrefix(t, func(f *fixture) {
		t := f.t
		logs := f.three()
		f.inTurns(logs...)
		for _, l := range logs {
			f.stop(l)
		}
		f.in = 1
		f.remove()
		name := f.subjects.AuditPartitions()[1].Stream
		_, faults, _ := f.verify()
		require.Equal(t, []string{
			"the stream " + name + " is missing: it was removed, or no worker has run with this nats.partitions",
			"the chain is missing: MongoDB knows that it had 6 messages",
		}, faults)
		listed := map[string]bool{}
		err := audit.All(f.within(patience), f.js, f.subjects, time.Time{}, func(e audit.Entry) error {
			listed[e.Chain] = true
			return nil
		})
		require.ErrorIs(t, err, audit.ErrIncomplete)
		require.ErrorContains(t, err, name)
		require.Equal(t, map[string]bool{logs[0].Chain(): true, logs[2].Chain(): true}, listed)

		f.ensure() // as a worker's next pass does
		_, faults, _ = f.verify()
		require.Len(t, faults, 1, "its chain is missed still")
		require.Len(t, f.users(), 8)
	})
}

// A head that an earlier release wrote names no stream: it had one.
func TestHeadsOfEarlierReleasesBelongToTheFirstStream(t *testing.T) {
	f := newFixture(t, enginestest.NATS(t).URL())
	f.write()
	for chain, h := range f.heads {
		h.Stream = ""
		f.heads[chain] = h
	}
	f.subjects.Partitions = 3
	f.ensure()
	f.clean(2)
	f.remove()
	f.ensure()
	_, faults, _ := f.verify(func(c *audit.Check) {
		add := c.OnFinding
		c.OnFinding = func(found audit.Finding) {
			require.Equal(t, f.subjects.AuditStream(), found.Stream)
			add(found)
		}
	})
	require.Len(t, faults, 2)
}

// Age goes on removing messages while the streams before are read.
func TestMessagesThatAgeRemovesMeanwhileAreNotMissed(t *testing.T) {
	f := newFixture(t, enginestest.NATS(t).URL(), 2)
	f.write()
	f.in = 1
	f.write()
	f.rebuild(f.messages()) // which lets messages be removed
	_, faults, _ := f.verify(func(c *audit.Check) {
		c.Heads = nil
		c.OnProgress = func(read, _ uint64) {
			if read == 1 {
				for seq := range uint64(4) {
					require.NoError(t, f.stream().DeleteMsg(t.Context(), seq+1))
				}
			}
		}
	})
	require.Empty(t, faults)
}
