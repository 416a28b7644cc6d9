package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events/options/optionstest"
	"github.com/latchkey/latchkey/store/audit"
)

func handedOut(user string) audit.Record {
	return audit.Record{
		Action: audit.HandedOut, Outcome: audit.OutcomeOK, User: user, Caller: &audit.Caller{Inbox: "_INBOX_portfolio"},
		Grants: []audit.Grant{{ID: "xmpg6tciejkxmpg6tciejk", Broker: "coinbase", Version: 3, Accounts: []string{"cb-1", "cb-2"}}},
	}
}

// publisher is a log's way to publish, which can be stopped or spoilt.
type publisher struct {
	publish       func(context.Context, *nats.Msg) (uint64, error)
	before, after func() error
}

func (p *publisher) publishSpoilt(ctx context.Context, msg *nats.Msg) (uint64, error) {
	if p.before != nil {
		if err := p.before(); err != nil {
			return 0, err
		}
	}
	sequence, err := p.publish(ctx, msg)
	if err == nil && p.after != nil {
		err = p.after()
	}
	return sequence, err
}

// metric returns the sum of a metric's values over all labels.
func metric(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	sum := 0.0
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func TestRecordsShareMessagesAndFormOneChain(t *testing.T) {
	f := newFixture(t, enginestest.NATS(t).URL())
	const writers, each = 32, 25
	reg := prometheus.NewRegistry()
	l := f.log(func(o *audit.Options) { o.Metrics = reg })
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				user := fmt.Sprintf("%d.%d <ü\x7f\u2028>", w, i)
				if i%5 == 0 {
					l.Add(handedOut(user))
				} else if err := l.Write(f.t.Context(), handedOut(user)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	f.stop(l)
	l.Add(handedOut("late"))
	require.ErrorIs(t, l.Write(t.Context(), handedOut("late")), audit.ErrClosed)
	f.stop(l) // once more does nothing

	all := f.records()
	require.Len(t, all, writers*each+2)
	require.Equal(t, audit.Begin, all[0].Action)
	require.Equal(t, audit.End, all[len(all)-1].Action)
	seen := map[string]bool{}
	for _, e := range all[1 : len(all)-1] {
		require.False(t, seen[e.User])
		seen[e.User] = true
		want := handedOut(e.User)
		want.At = e.At
		require.Equal(t, want, e.Record)
		require.Equal(t, "worker.1", e.Worker)
		require.Equal(t, l.Chain(), e.Chain)
	}
	report, faults, notes := f.verify()
	require.Empty(t, faults)
	require.Empty(t, notes)
	require.Equal(t, 1, report.Chains)
	require.EqualValues(t, len(all), report.Records)
	require.Less(t, report.Messages, report.Records)
	require.EqualValues(t, report.Messages, f.heads[l.Chain()].Number)
	require.True(t, f.heads[l.Chain()].Ended)
	require.EqualValues(t, len(all), metric(t, reg, "latchkey_audit_records_total"))
	require.Zero(t, metric(t, reg, "latchkey_audit_queue"))
	require.EqualValues(t, 1, metric(t, reg, "latchkey_audit_lost_total"), "that after the end")
}

func TestNilLogKeepsNothing(t *testing.T) {
	var l *audit.Log
	l.Start()
	l.Add(handedOut("u"))
	require.NoError(t, l.Write(t.Context(), handedOut("u")))
	require.NoError(t, l.Stop(t.Context()))
}

func TestLostAcknowledgementsForkNothing(t *testing.T) {
	f := newFixture(t, enginestest.NATS(t).URL())
	var calls atomic.Int64
	p := &publisher{publish: audit.PublishOver(f.js.Conn()), after: func() error {
		if calls.Add(1)%3 != 0 {
			return nats.ErrTimeout // it is stored, and nobody knows
		}
		return nil
	}}
	l := f.log(func(o *audit.Options) { o.Publish = p.publishSpoilt })
	for i := range 5 {
		require.NoError(t, l.Write(t.Context(), handedOut(fmt.Sprint(i))))
	}
	f.stop(l)
	report, faults, notes := f.verify()
	require.Empty(t, faults)
	require.Empty(t, notes)
	require.EqualValues(t, 7, report.Records)
}

func TestWhatIsNotWrittenInTimeIsWithdrawn(t *testing.T) {
	f := newFixture(t, enginestest.NATS(t).URL())
	held, let := make(chan struct{}, 1), make(chan struct{})
	p := &publisher{publish: audit.PublishOver(f.js.Conn()), before: func() error {
		select {
		case held <- struct{}{}:
		default:
		}
		<-let
		return nil
	}}
	l := f.log(func(o *audit.Options) { o.Publish = p.publishSpoilt })
	<-held // the beginning is on its way
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 100 {
		require.ErrorIs(t, l.Write(over, handedOut(fmt.Sprint("withdrawn", i))), audit.ErrUnwritten)
	}
	l.Add(handedOut("kept"))
	close(let)
	f.stop(l)
	all := f.records()
	require.Len(t, all, 3)
	require.Equal(t, "kept", all[1].User)
	_, faults, _ := f.verify()
	require.Empty(t, faults)
}

func TestRecordsThatFindNoRoomAreCounted(t *testing.T) {
	f := newFixture(t, enginestest.NATS(t).URL())
	held, let := make(chan struct{}, 1), make(chan struct{})
	p := &publisher{publish: audit.PublishOver(f.js.Conn()), before: func() error {
		select {
		case held <- struct{}{}:
		default:
		}
		<-let
		return nil
	}}
	reg := prometheus.NewRegistry()
	l := f.log(func(o *audit.Options) { o.Publish, o.Metrics = p.publishSpoilt, reg })
	<-held
	big := handedOut("u")
	big.Grants[0].Accounts = []string{strings.Repeat("a", 100<<10)}
	const added = 500 // 50 MB
	for range added {
		l.Add(big)
	}
	require.ErrorIs(t, l.Write(t.Context(), big), audit.ErrFull)
	close(let)
	f.stop(l)
	all := f.records()
	written, lost := 0, 0
	for _, e := range all {
		switch e.Action {
		case audit.HandedOut:
			written++
		case audit.Lost:
			lost += e.Count
		}
	}
	require.Greater(t, written, 100)
	require.Positive(t, lost)
	require.Equal(t, added, written+lost)
	require.Equal(t, audit.End, all[len(all)-1].Action)
	_, faults, _ := f.verify()
	require.Empty(t, faults)
	require.EqualValues(t, lost, metric(t, reg, "latchkey_audit_lost_total"))
}

func TestRecordsTooLongForAMessageAreShortened(t *testing.T) {
	f := newFixture(t, enginestest.NATS(t).URL())
	l := f.log()
	long := handedOut("long")
	long.Grants[0].Accounts = []string{strings.Repeat("a", 1<<20)}
	wide := handedOut("wide")
	for range 10_000 {
		wide.Grants = append(wide.Grants, wide.Grants[0])
	}
	require.NoError(t, l.Write(t.Context(), long))
	require.NoError(t, l.Write(t.Context(), wide))
	f.stop(l)
	all := f.records()
	require.True(t, all[1].Truncated)
	require.Equal(t, "xmpg6tciejkxmpg6tciejk", all[1].Grants[0].ID)
	require.Empty(t, all[1].Grants[0].Accounts)
	require.True(t, all[2].Truncated)
	require.Empty(t, all[2].Grants)
}

func TestAFullDiskIsWaitedFor(t *testing.T) {
	f := newFixture(t, enginestest.NATSWith(t, engines.NATSOptions{MaxStore: 4 << 20}).URL())
	l := f.log()
	require.NoError(t, l.Write(t.Context(), handedOut("before")))
	_, err := f.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "JUNK", Subjects: []string{"junk"}})
	require.NoError(t, err)
	for err == nil {
		_, err = f.js.Publish(t.Context(), "junk", bytes.Repeat([]byte("x"), 64<<10))
	}
	for err = nil; err == nil; { // what room is left is less than a chunk of junk
		err = l.Write(f.within(time.Second), handedOut("filling"))
	}
	require.ErrorIs(t, err, audit.ErrUnwritten)
	require.NoError(t, f.js.DeleteStream(t.Context(), "JUNK"))
	require.NoError(t, l.Write(f.within(patience), handedOut("after")))
	f.stop(l)
	_, faults, notes := f.verify()
	require.Empty(t, faults)
	require.Empty(t, notes)
}

func TestStopDoesNotWaitForEver(t *testing.T) {
	f := newFixture(t, enginestest.NATS(t).URL())
	require.NoError(t, f.js.DeleteStream(t.Context(), f.subjects.AuditStream()))
	l := f.log()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, l.Stop(over), audit.ErrUnwritten)
	require.Empty(t, f.heads)
}

func BenchmarkWrite(b *testing.B) {
	f := newFixture(b, enginestest.NATS(b).URL())
	l := f.log()
	b.ReportAllocs()
	b.SetParallelism(128)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := l.Write(context.Background(), handedOut("user")); err != nil {
				b.Error(err)
			}
		}
	})
	b.StopTimer()
	f.stop(l)
	b.ReportMetric(float64(b.N)/float64(l.Head().Number), "records/message")
}

// unconnected is a JetStream whose connection leads nowhere.
type unconnected struct{ jetstream.JetStream }

func (unconnected) Conn() *nats.Conn { return &nats.Conn{} }

func TestEveryRequiredOptionIsNamed(t *testing.T) {
	o := audit.Options{JetStream: &unconnected{}, NewID: uuid.NewString, Now: time.Now}
	optionstest.Required(t, audit.New, o, "JetStream", "NewID", "Now")
}
