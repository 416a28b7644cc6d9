package refresher_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// beats is a MembershipStore in memory.
type beats struct {
	mu   sync.Mutex
	all  map[string]store.Heartbeat
	away map[string]bool // runs that can't reach it
	mute map[string]bool // runs whose writes arrive and whose answers don't
}

func newBeats() *beats {
	return &beats{all: map[string]store.Heartbeat{}, away: map[string]bool{}, mute: map[string]bool{}}
}

var errAway = errors.New("away")

func (b *beats) RecordHeartbeat(_ context.Context, own store.Heartbeat) (all []store.Heartbeat, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away[own.Run] {
		return nil, errAway
	}
	b.all[own.Run] = own
	if b.mute[own.Run] {
		return nil, errAway
	}
	for _, beat := range b.all {
		all = append(all, beat)
	}
	return all, nil
}

func (b *beats) DeleteHeartbeat(_ context.Context, beat store.Heartbeat) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all[beat.Run].N <= beat.N {
		delete(b.all, beat.Run)
	}
	return nil
}

// member is a worker as far as limits go.
type member struct {
	run        string
	membership *refresher.Membership
	limits     *refresher.Limits
	next       time.Time // when it beats next
	frozen     bool
}

func join(run string, c *clock, s refresher.MembershipStore, cfg config.Limits, log *zap.Logger) *member {
	m := &member{run: run}
	m.membership = must(refresher.NewMembership(refresher.MembershipOptions{Store: s, Run: run, WorkerID: "w", Now: c.Now, Log: log, Metrics: prometheus.NewRegistry()}))
	m.limits = must(refresher.NewLimits(refresher.LimitsOptions{Config: cfg, Credentials: credentials, Now: c.Now, Workers: m.membership.Workers, OnBreaker: func(string, bool) {}}))
	return m
}

// beat beats where it is time.
func (m *member) beat(ctx context.Context, now time.Time) {
	if !m.frozen && !now.Before(m.next) {
		m.next = now.Add(refresher.BeatEvery)
		_ = m.membership.Heartbeat(ctx)
	}
}

// start starts as many refreshes as the limits let in.
func (m *member) start() (started int) {
	for {
		done, err := m.limits.Enter("a")
		if err != nil {
			return started
		}
		started++
		done(nil)
	}
}

// share is the part of the limits that a worker would use now.
func (m *member) share() float64 {
	if n := m.membership.Workers(); n > 0 {
		return 1 / float64(n)
	}
	return 0
}

func gauge(t *testing.T, reg prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.Metric[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// Whatever becomes of workers (they come, leave, are killed, held up, cut off from the
// database, or don't get its answers), they never use more than the whole together but
// for as long after one has come as a share holds without a beat. When nothing happens
// they use the whole.
func TestSharesAreNeverMoreThanTheWhole(t *testing.T) {
	t.Parallel()
	const tick = 100 * time.Millisecond
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		c := newClock(t0)
		s := newBeats()
		var members []*member
		var came time.Time // when one last came or came back
		runs := 0
		pick := func() *member {
			if len(members) == 0 {
				return nil
			}
			return members[rapid.IntRange(0, len(members)-1).Draw(t, "who")]
		}
		remove := func(m *member) {
			for i := range members {
				if members[i] == m {
					members = append(members[:i:i], members[i+1:]...)
					return
				}
			}
		}
		pass := func(d time.Duration) {
			for ; d > 0; d -= tick {
				c.Advance(tick)
				for _, m := range members {
					before := m.membership.Workers()
					m.beat(ctx, c.Now())
					if before == 0 && m.membership.Workers() > 0 {
						came = c.Now()
					}
				}
				sum := 0.0
				for _, m := range members {
					sum += m.share()
				}
				if sum > 1+1e-9 && c.Now().Sub(came) > refresher.ShareHolds {
					t.Fatalf("the shares are %v of the whole, %v after the last one came", sum, c.Now().Sub(came))
				}
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			m := pick()
			switch event := rapid.SampledFrom([]string{"join", "join", "leave", "kill", "freeze", "thaw", "cut off", "deafen", "mend"}).Draw(t, "event"); {
			case event == "join":
				runs++
				m := join(fmt.Sprint(runs), c, s, wide(), zap.NewNop())
				m.next = c.Now().Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "phase")) * tick)
				members = append(members, m)
			case m == nil:
			case event == "leave":
				m.membership.Leave(ctx)
				remove(m)
			case event == "kill":
				remove(m)
			case event == "freeze":
				m.frozen = true
			case event == "thaw":
				m.frozen = false
			case event == "cut off":
				s.away[m.run] = true
			case event == "deafen":
				s.mute[m.run] = true
			case event == "mend":
				s.away[m.run], s.mute[m.run] = false, false
			}
			pass(time.Duration(rapid.IntRange(0, 200).Draw(t, "ticks")) * tick)
		}
		pass(3 * refresher.ShareFree)
		well, deaf, sum := 0, 0, 0.0
		for _, m := range members {
			sum += m.share()
			switch {
			case s.mute[m.run]:
				deaf++ // it is counted, and does not use its share
			case !m.frozen && !s.away[m.run]:
				well++
			}
		}
		if well > 0 && deaf == 0 && (sum < 1-1e-9 || sum > 1+1e-9) {
			t.Fatalf("%d workers use %v of the whole", well, sum)
		}
	})
}

// A database that was away from all comes back to all: nobody takes the others for gone.
func TestSharesAfterAnOutageOfTheDatabase(t *testing.T) {
	t.Parallel()
	c := newClock(t0)
	s := newBeats()
	var members []*member
	for n := range 5 {
		members = append(members, join(fmt.Sprint(n), c, s, wide(), zap.NewNop()))
	}
	during := func(d time.Duration, most float64) (sum float64) {
		for end := c.Now().Add(d); c.Now().Before(end); c.Advance(100 * time.Millisecond) {
			sum = 0
			for _, m := range members {
				m.beat(t.Context(), c.Now())
				sum += m.share()
			}
			require.LessOrEqual(t, sum, most+1e-9)
		}
		return sum
	}
	during(refresher.ShareHolds, 5)
	require.InDelta(t, 1, during(time.Minute, 1), 1e-9)
	for _, m := range members {
		s.away[m.run] = true
	}
	require.Zero(t, during(time.Minute, 1))
	clear(s.away)
	require.InDelta(t, 1, during(2*refresher.ShareFree, 1), 1e-9)
}

// lateBeats answers late.
type lateBeats struct {
	*beats
	c    *clock
	late time.Duration
}

func (b *lateBeats) RecordHeartbeat(ctx context.Context, own store.Heartbeat) ([]store.Heartbeat, error) {
	all, err := b.beats.RecordHeartbeat(ctx, own)
	b.c.Advance(b.late)
	return all, err
}

// Who was heard of before an answer that comes late is not gone for that.
func TestALateAnswerTakesNobodyForGone(t *testing.T) {
	t.Parallel()
	c := newClock(t0)
	s := newBeats()
	late := &lateBeats{beats: s, c: c}
	a, b := join("a", c, late, wide(), zap.NewNop()), join("b", c, s, wide(), zap.NewNop())
	require.NoError(t, b.membership.Heartbeat(t.Context()))
	require.NoError(t, a.membership.Heartbeat(t.Context()))
	c.Advance(refresher.ShareFree - refresher.ShareHolds + time.Second)
	late.late = refresher.ShareHolds - time.Second
	require.NoError(t, a.membership.Heartbeat(t.Context()))
	require.Equal(t, 2, a.membership.Workers())
}

// What workers start together is what the limits say, however many there are.
func TestLimitsAreTheInstallations(t *testing.T) {
	t.Parallel()
	const tick = 50 * time.Millisecond
	for name, cfg := range map[string]config.Limits{
		"rate":        wide(func(l *config.Limits) { l.Rate, l.Burst = 40, 8 }),
		"broker_rate": wide(func(l *config.Limits) { l.BrokerRate, l.BrokerBurst = 40, 8 }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClock(t0)
			s := newBeats()
			var members []*member
			during := func(d time.Duration) (started int) {
				for ; d > 0; d -= tick {
					c.Advance(tick)
					for _, m := range members {
						m.beat(t.Context(), c.Now())
						started += m.start()
					}
				}
				return started
			}
			for n := 1; n <= 4; n++ {
				members = append(members, join(fmt.Sprint(n), c, s, cfg, zap.NewNop()))
				// A new one: its burst, and a share that the others have not given up yet.
				require.LessOrEqual(t, during(refresher.BeatEvery+tick), 8+2*40*4)
				require.InDelta(t, 40*20, during(20*time.Second), 10, "%d workers", n)
			}
			// One that can't reach the database uses its share for a while, and then nothing.
			s.away["2"] = true
			require.LessOrEqual(t, during(60*time.Second), 40*60+10)
			require.Zero(t, members[1].membership.Workers())
			each, held := members[1].limits.AtLimit("a")
			require.True(t, held)
			require.Positive(t, each)
			_, err := members[1].limits.Enter("a")
			var later *refresher.LaterError
			require.ErrorAs(t, err, &later)
			require.Equal(t, "rate", later.Why)
			require.InDelta(t, 40*20, during(20*time.Second), 10, "the others use all of it")
			// One that is killed leaves its share unused for a while.
			members = members[:3]
			lost := during(refresher.ShareFree)
			require.Less(t, lost, 40*12)
			during(2 * refresher.BeatEvery)
			require.InDelta(t, 40*20, during(20*time.Second), 10)
			// One that stops leaves it at once.
			members[2].membership.Leave(t.Context())
			members = members[:2]
			s.away["2"] = false
			during(refresher.ShareFree + 2*refresher.BeatEvery) // the one that was away has to learn who is gone
			require.Equal(t, []int{2, 2}, []int{members[0].membership.Workers(), members[1].membership.Workers()})
			require.InDelta(t, 40*20, during(20*time.Second), 10)
		})
	}
}

// A rate that "too many" has lowered stays as low in proportion, and the least share of
// a burst is one.
func TestSharesOfALoweredRate(t *testing.T) {
	t.Parallel()
	c := newClock(t0)
	workers := 1
	l := must(refresher.NewLimits(refresher.LimitsOptions{Config: wide(func(l *config.Limits) { l.BrokerRate, l.BrokerBurst = 40, 2 }), Credentials: credentials, Now: c.Now, Workers: func() int { return workers }, OnBreaker: func(string, bool) {}}))
	dead := &refresher.Failure{Class: refresher.Dead}
	enter(t, l, "a")(&refresher.Failure{Class: refresher.RateLimited})
	require.InDelta(t, 200, admitted(l, c, 10, dead), 4)
	workers = 4
	require.InDelta(t, 50, admitted(l, c, 10, dead), 4)
	admitted(l, c, 60, nil)
	require.InDelta(t, 100, admitted(l, c, 10, dead), 4, "its share of the full rate")
	workers = 0
	require.Zero(t, admitted(l, c, 10, dead))
	workers = 1
	require.InDelta(t, 400, admitted(l, c, 10, dead), 4)
}

// hanging is a database that answers no beat before its time is over.
type hanging struct{ begun chan struct{} }

func (h hanging) RecordHeartbeat(ctx context.Context, _ store.Heartbeat) ([]store.Heartbeat, error) {
	h.begun <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (hanging) DeleteHeartbeat(context.Context, store.Heartbeat) error { return nil }

// A beat that a stop cuts short is no fault.
func TestAStopDuringABeatIsNoFault(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.InfoLevel)
	s := hanging{make(chan struct{})}
	c := must(refresher.NewMembership(refresher.MembershipOptions{Store: s, Run: "a", WorkerID: "w", Now: newClock(t0).Now, Log: zap.New(core), Metrics: prometheus.NewRegistry()}))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); c.Run(ctx) }()
	enginestest.Receive(t, s.begun)
	stop()
	enginestest.Receive(t, ended)
	require.Empty(t, logs.All())
}

// Beats go through a real database; who is gone for good is forgotten there.
func TestCrewInTheDatabase(t *testing.T) {
	t.Parallel()
	db := enginestest.MongoDB(t)
	s, err := store.Open(t.Context(), store.Options{URI: text(db.URI()), Database: enginestest.Name(t), Timeout: 20 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	core, logs := observer.New(zap.InfoLevel)
	c := newClock(t0)
	reg := prometheus.NewRegistry()
	a := must(refresher.NewMembership(refresher.MembershipOptions{Store: s, Run: "a", WorkerID: "w", Now: c.Now, Log: zap.New(core), Metrics: reg}))
	b := must(refresher.NewMembership(refresher.MembershipOptions{Store: s, Run: "b", WorkerID: "w", Now: c.Now, Log: zap.New(core), Metrics: prometheus.NewRegistry()}))
	require.Zero(t, a.Workers(), "before the first beat nothing is known")
	for range 2 {
		require.NoError(t, a.Heartbeat(t.Context()))
		require.NoError(t, b.Heartbeat(t.Context()))
	}
	require.Equal(t, []int{2, 2}, []int{a.Workers(), b.Workers()})
	require.InDelta(t, 2, gauge(t, reg, "latchkey_limits_workers"), 0)
	require.NoError(t, a.Heartbeat(t.Context()))
	c.Advance(refresher.ShareFree)
	require.Zero(t, a.Workers())
	require.NoError(t, a.Heartbeat(t.Context()))
	require.Equal(t, 2, a.Workers(), "the database may have been away from both")
	alone := func(beats int) {
		for range beats {
			c.Advance(refresher.BeatEvery)
			require.NoError(t, a.Heartbeat(t.Context()))
		}
	}
	alone(int(refresher.ShareFree / refresher.BeatEvery))
	require.Equal(t, 1, a.Workers())
	alone(50)
	other := store.Heartbeat{Run: "c", N: 1}
	known, err := s.RecordHeartbeat(t.Context(), other)
	require.NoError(t, err)
	require.Len(t, known, 2, "a and c: b is forgotten")
	require.NoError(t, s.DeleteHeartbeat(t.Context(), other))
	for kept, n := range []int64{2, 1} { // it stopped during its second beat; it has recorded its third
		_, err = s.RecordHeartbeat(t.Context(), store.Heartbeat{Run: "d", N: 2*int64(kept) + 1})
		require.NoError(t, err)
		require.NoError(t, s.DeleteHeartbeat(t.Context(), store.Heartbeat{Run: "d", N: n}))
		known, err = s.RecordHeartbeat(t.Context(), other)
		require.NoError(t, err)
		require.Len(t, known, 2+kept, n)
	}
	require.NoError(t, s.DeleteHeartbeat(t.Context(), store.Heartbeat{Run: "d", N: 3}))
	require.NoError(t, s.DeleteHeartbeat(t.Context(), other))
	require.NoError(t, b.Heartbeat(t.Context()))
	require.Equal(t, 2, b.Workers(), "one that was forgotten is there again")
	b.Leave(t.Context())
	require.Zero(t, b.Workers())
	require.NoError(t, a.Heartbeat(t.Context()))
	require.Equal(t, 1, a.Workers())

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, a.Heartbeat(ended))
	require.Error(t, a.Heartbeat(ended))
	require.NoError(t, a.Heartbeat(t.Context()))
	require.Equal(t, 2, logs.Len(), "once that it fails, once that it is well")
	a.Run(ended) // leaves
	left, err := s.RecordHeartbeat(t.Context(), store.Heartbeat{Run: "c", N: 1})
	require.NoError(t, err)
	require.Equal(t, []store.Heartbeat{{Run: "c", N: 1}}, left)
}
