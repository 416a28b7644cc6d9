package audit_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/store/audit"
)

// written fills a stream with two chains, message by message: a's numbers 1, 2,
// b's 1, 2, a's 3, 4, 5, which its end is part of.
func written(t *testing.T) (f *fixture, a, b string) {
	f = newFixture(t, enginestest.NATS(t).URL())
	a, b = f.write()
	return f, a, b
}

func (f *fixture) write() (a, b string) {
	t := f.t
	one := f.log()
	write := func(l *audit.Log, user string) { require.NoError(t, l.Write(t.Context(), handedOut(user))) }
	f.begun(one)
	write(one, "alice")
	two := f.log()
	f.begun(two)
	write(two, "bob")
	write(one, "carol")
	write(one, "dave")
	f.stop(one)
	f.stop(two)
	return one.Chain(), two.Chain()
}

// begun waits until a chain has its first message.
func (f *fixture) begun(l *audit.Log) {
	f.t.Helper()
	require.Eventually(f.t, func() bool { return l.Head().Number >= 1 }, patience, time.Millisecond)
}

func TestWhatIsTamperedWithIsFound(t *testing.T) {
	for _, partitions := range []int{1, 3} {
		for in := range partitions {
			t.Run(fmt.Sprintf("stream %d of %d", in, partitions), func(t *testing.T) {
				whatIsTamperedWithIsFound(t, newFixture(t, enginestest.NATS(t).URL(), partitions), in)
			})
		}
	}
}

func whatIsTamperedWithIsFound(t *testing.T, f *fixture, in int) {
	for f.in = range f.subjects.AuditPartitions() { // the others are as they should be
		if f.in != in {
			f.write()
		}
	}
	f.in = in
	a, b := f.write()
	all := f.messages()
	require.Len(t, all, 8)
	heads := f.heads
	_, faults, notes := f.verify()
	require.Empty(t, faults)
	require.Empty(t, notes)
	f.rebuild(all)
	_, faults, _ = f.verify()
	require.Empty(t, faults, "the same again is the same")

	without := func(n ...int) func([]message) []message { // cut out, and the rest moved up
		return func(all []message) []message {
			for _, i := range slices.Backward(n) {
				all = slices.Delete(all, i, i+1)
			}
			return all
		}
	}
	deleted := func(n ...int) func([]message) []message {
		return func(all []message) []message {
			for _, i := range n {
				all[i].gone = true
			}
			return all
		}
	}
	changed := func(n int, from, to string) func([]message) []message {
		return func(all []message) []message {
			require.Contains(t, string(all[n].body), from)
			all[n].body = bytes.ReplaceAll(all[n].body, []byte(from), []byte(to))
			return all
		}
	}
	for name, c := range map[string]struct {
		tamper func([]message) []message
		heads  func(map[string]audit.Head)
		want   string
	}{
		"one deleted":                 {deleted(1), nil, "it is missing from the stream"},
		"several deleted":             {deleted(1, 2, 3), nil, "the messages from here to 4 are missing"},
		"the first deleted":           {deleted(0), nil, "the chain begins with message 2: those before were removed though they are not old enough"},
		"the first deleted, head too": {without(0), func(h map[string]audit.Head) { delete(h, a) }, "the chain begins with message 2: those before are missing"},
		"the end deleted":             {deleted(6, 7), nil, "the messages from here to 8 are missing"},
		"all deleted":                 {deleted(0, 1, 2, 3, 4, 5, 6, 7), nil, "the chain is missing: MongoDB knows that it had 5 messages"},
		"one cut out":                 {without(1), nil, "message 3 follows message 1: those between are missing"},
		"an end cut off":              {without(6), nil, "the chain ends with message 4, but MongoDB knows that it had 5"},
		"a chain cut out":             {without(2, 3, 7), nil, "the chain is missing: MongoDB knows that it had 3 messages"},
		"a user changed":              {changed(1, "alice", "mallory"), nil, "message 3 does not carry the hash of message 2 at 2: one of the two was changed"},
		"the last message changed":    {changed(7, `"end"`, `"eve"`), nil, "message 3 is not the one whose hash is kept in MongoDB"},
		"a head changed":              {nil, func(h map[string]audit.Head) { x := h[b]; x.Hash = h[a].Hash; h[b] = x }, "message 3 is not the one whose hash is kept in MongoDB"},
		"a hash changed":              {changed(1, `"prev":"`, `"prev":"0`), nil, "not an audit message"},
		"another's words":             {func(all []message) []message { all[1].body = []byte("{}"); return all }, nil, "not an audit message"},
		"put under another chain":     {func(all []message) []message { all[1].subject = all[2].subject; return all }, nil, "published under another chain's subject"},
		"two exchanged":               {func(all []message) []message { all[4], all[5] = all[5], all[4]; return all }, nil, "message 3 comes after message 4"},
		"moved":                       {func(all []message) []message { all[1], all[2] = all[2], all[1]; return all }, nil, "they were stored again"},
		"added after the end":         {func(all []message) []message { return append(all, all[1]) }, nil, "message 2 comes after the end of the chain"},
		"a forged beginning":          {changed(0, `"begin"`, `"start"`), nil, "the chain does not begin as chains do"},
		"a foreign message in the rear": {func(all []message) []message {
			return append(all, message{all[0].subject, []byte(`{"chain":7}`), false})
		}, nil, "not an audit message"},
	} {
		t.Run(name, func(t *testing.T) {
			tampered := slices.Clone(all)
			if c.tamper != nil {
				tampered = c.tamper(tampered)
			}
			f.heads = map[string]audit.Head{}
			for chain, h := range heads {
				f.heads[chain] = h
			}
			if c.heads != nil {
				c.heads(f.heads)
			}
			f.rebuild(tampered)
			_, faults, _ := f.verify(func(c *audit.Check) {
				add := c.OnFinding
				c.OnFinding = func(found audit.Finding) {
					require.Equal(t, f.stream().CachedInfo().Config.Name, found.Stream, found.Text)
					add(found)
				}
			})
			require.Condition(t, func() bool {
				return slices.ContainsFunc(faults, func(s string) bool { return strings.Contains(s, c.want) })
			}, "%q", faults)
		})
	}
}

func TestWhatIsNoFault(t *testing.T) {
	f, a, b := written(t)
	all := f.messages()
	f.rebuild(slices.Insert(slices.Clone(all), 8, all[7])) // acknowledged too late for the stream to know its id
	_, faults, notes := f.verify()
	require.Empty(t, faults)
	require.Contains(t, notes, "message 3 was stored twice")

	f.rebuild(all)
	head := f.heads[b]
	delete(f.heads, b)
	_, faults, notes = f.verify()
	require.Empty(t, faults)
	require.Contains(t, notes, "MongoDB knows nothing of this chain: its end can't be checked")
	f.heads[b] = head

	// The first three have gone by age: chain a has lost its beginning, as b has.
	old := slices.Clone(all)
	for i := range 3 {
		old[i].gone = true
	}
	f.rebuild(old)
	_, faults, _ = f.verify()
	require.Len(t, faults, 2)
	for _, chain := range []string{a, b} {
		h := f.heads[chain]
		h.Begun = h.Begun.Add(-retention)
		f.heads[chain] = h
	}
	report, faults, _ := f.verify()
	require.Empty(t, faults)
	require.EqualValues(t, 4, report.First)
	require.EqualValues(t, 8, report.Last)

	// Everything has gone by age.
	for i := range old {
		old[i].gone = true
	}
	f.rebuild(old)
	_, faults, _ = f.verify(func(c *audit.Check) { c.Now = c.Now.Add(retention) })
	require.Empty(t, faults)
	_, faults, _ = f.verify(func(c *audit.Check) { c.Since = time.Now() })
	require.Empty(t, faults)
	_, faults, _ = f.verify(func(c *audit.Check) { c.Retention = time.Nanosecond })
	require.Empty(t, faults, "a retention that was shortened")
	_, faults, _ = f.verify()
	require.Len(t, faults, 2)
}

func TestSinceLeavesOutWhatIsOlder(t *testing.T) {
	f, _, _ := written(t)
	all := f.messages()
	all[1].body = []byte("{}") // explained
	f.rebuild(all)
	between := time.Now()
	l := f.log()
	require.NoError(t, l.Write(t.Context(), handedOut("later")))
	f.stop(l)
	_, faults, _ := f.verify()
	require.NotEmpty(t, faults)
	report, faults, _ := f.verify(func(c *audit.Check) { c.Since = between })
	require.Empty(t, faults)
	require.EqualValues(t, 3, report.Records)
	require.Equal(t, 1, report.Chains)
}

func TestAWorkerAtWorkIsNoFault(t *testing.T) {
	f := newFixture(t, enginestest.NATS(t).URL())
	_, faults, notes := f.verify()
	require.Empty(t, faults)
	require.Empty(t, notes)
	l := f.log(func(o *audit.Options) { o.HeadInterval = time.Millisecond })
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				l.Add(handedOut("u"))
				_ = l.Write(t.Context(), handedOut("u"))
			}
		}
	}()
	require.Eventually(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.heads) > 0
	}, patience, time.Millisecond)
	for range 20 {
		_, faults, notes = f.verify()
		require.Empty(t, faults)
		require.Equal(t, []string{"the chain has no end: its worker still runs, or was killed"}, notes)
	}
	close(stop)
	<-done
	f.stop(l)
}

func TestNoLogIsNamed(t *testing.T) {
	f := newFixture(t, enginestest.NATS(t).URL(), 3)
	for f.in = range f.subjects.AuditPartitions() {
		f.remove()
	}
	_, err := audit.Verify(t.Context(), f.js, f.subjects, audit.Check{})
	require.ErrorIs(t, err, audit.ErrNoLog)
	require.ErrorIs(t, audit.All(t.Context(), f.js, f.subjects, time.Time{}, nil), audit.ErrNoLog)
}
