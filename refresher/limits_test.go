package refresher_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/refresher"
)

// wide are limits that stand in nobody's way.
func wide(change ...func(*config.Limits)) config.Limits {
	l := config.Limits{Rate: 1000, Burst: 1000, BrokerRate: 1000, BrokerBurst: 1000, BrokerConcurrency: 1000, BreakerFailures: 1000, BreakerOpen: hour}
	for _, f := range change {
		f(&l)
	}
	return l
}

var credentials = config.Backoff{Min: 10 * time.Second, Max: 80 * time.Second}

func newLimits(cfg config.Limits, c *clock) *refresher.Limits {
	return must(refresher.NewLimits(refresher.LimitsOptions{Config: cfg, Credentials: credentials, Now: c.Now, OnBreaker: func(string, bool) {}}))
}

// enter expects to be let in.
func enter(t *testing.T, l *refresher.Limits, broker string) func(*refresher.Failure) {
	t.Helper()
	done, err := l.Enter(broker)
	require.NoError(t, err)
	return done
}

// later expects to be sent away.
func later(t *testing.T, l *refresher.Limits, broker string) refresher.LaterError {
	t.Helper()
	_, err := l.Enter(broker)
	var e *refresher.LaterError
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Error(), e.Why)
	return *e
}

func TestBurstThenRate(t *testing.T) {
	for name, cfg := range map[string]config.Limits{
		"broker":  wide(func(l *config.Limits) { l.BrokerRate, l.BrokerBurst = 2, 3 }),
		"overall": wide(func(l *config.Limits) { l.Rate, l.Burst = 2, 3 }),
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock(t0)
			l := newLimits(cfg, c)
			for range 3 {
				enter(t, l, "a")(nil)
			}
			for range 10 { // being sent away costs nothing
				require.Equal(t, refresher.LaterError{After: 500 * time.Millisecond, Why: "rate"}, later(t, l, "a"))
			}
			c.Advance(499 * time.Millisecond)
			require.Equal(t, refresher.LaterError{After: time.Millisecond, Why: "rate"}, later(t, l, "a"))
			c.Advance(time.Millisecond)
			enter(t, l, "a")(nil)
			later(t, l, "a")
			c.Advance(hour)
			for range 3 {
				enter(t, l, "a")(nil)
			}
			later(t, l, "a")
		})
	}
}

func TestBrokersShareOnlyTheOverallRate(t *testing.T) {
	c := newClock(t0)
	l := newLimits(wide(func(l *config.Limits) { l.Rate, l.Burst, l.BrokerRate, l.BrokerBurst = 1, 3, 1, 2 }), c)
	enter(t, l, "a")(nil)
	enter(t, l, "a")(nil)
	later(t, l, "a") // its own
	enter(t, l, "b")(nil)
	for range 10 {
		later(t, l, "b") // the overall one, and b's token is given back each time
	}
	c.Advance(time.Second)
	enter(t, l, "b")(nil)
	c.Advance(time.Second)
	enter(t, l, "b")(nil)
}

func TestConcurrency(t *testing.T) {
	l := newLimits(wide(func(l *config.Limits) { l.BrokerConcurrency = 2 }), newClock(t0))
	first, second := enter(t, l, "a"), enter(t, l, "a")
	require.Equal(t, refresher.LaterError{After: time.Second, Why: "concurrency"}, later(t, l, "a"))
	enter(t, l, "b")(nil)
	for _, f := range []*refresher.Failure{nil, {Class: refresher.Transient}, {Class: refresher.Dead}, {Class: refresher.RateLimited}, {Class: refresher.Uncalled}} {
		first(f)
		first = enter(t, l, "a")
		later(t, l, "a")
	}
	second(nil)
	enter(t, l, "a")
}

func TestBreakerOpensAfterFailuresInARow(t *testing.T) {
	transient := &refresher.Failure{Class: refresher.Transient}
	type change struct {
		broker string
		open   bool
	}
	var seen []change
	c := newClock(t0)
	l := must(refresher.NewLimits(refresher.LimitsOptions{Config: wide(func(l *config.Limits) { l.BreakerFailures = 3 }), Credentials: credentials, Now: c.Now, OnBreaker: func(broker string, open bool) { seen = append(seen, change{broker, open}) }}))
	fail := func(n int) {
		for range n {
			enter(t, l, "a")(transient)
		}
	}
	for _, answered := range []*refresher.Failure{nil, {Class: refresher.Dead}, {Class: refresher.MustAct}, {Class: refresher.BadRequest}, {Class: refresher.RateLimited}} {
		fail(2)
		enter(t, l, "a")(answered) // the broker answers after all
	}
	require.Empty(t, seen)
	fail(2)
	enter(t, l, "a")(&refresher.Failure{Class: refresher.Uncalled}) // says nothing about the broker
	fail(1)
	require.Equal(t, []change{{"a", true}}, seen)
	require.Equal(t, refresher.LaterError{After: hour / 2, Why: "breaker"}, later(t, l, "a"))
	enter(t, l, "b")(nil)
}

// TestBreakerTriesAgain uses a breaker that stays open for a millisecond of
// real time: it has no other clock.
func TestBreakerTriesAgain(t *testing.T) {
	transient := &refresher.Failure{Class: refresher.Transient}
	var opened, closed atomic.Int32
	l := must(refresher.NewLimits(refresher.LimitsOptions{Config: wide(func(l *config.Limits) { l.BreakerFailures, l.BreakerOpen = 1, time.Millisecond }), Credentials: credentials, Now: time.Now, OnBreaker: func(_ string, open bool) {
		if open {
			opened.Add(1)
		} else {
			closed.Add(1)
		}
	}}))
	var probe func(*refresher.Failure)
	halfOpen := func() {
		require.Eventually(t, func() bool {
			var err error
			probe, err = l.Enter("a")
			return err == nil
		}, time.Minute, time.Millisecond)
		require.Equal(t, "breaker", later(t, l, "a").Why, "one probe at a time")
	}
	enter(t, l, "a")(transient)
	require.Equal(t, int32(1), opened.Load())
	halfOpen()
	probe(transient)
	require.Equal(t, int32(2), opened.Load(), "the probe failed")
	halfOpen()
	probe(&refresher.Failure{Class: refresher.Uncalled})
	halfOpen() // nothing was learnt: another probe
	probe(nil)
	for range 10 {
		enter(t, l, "a")
	}
	require.Equal(t, int32(2), opened.Load())
}

func TestAWaitForTheProbeCostsNoRate(t *testing.T) {
	c := newClock(t0)
	l := newLimits(wide(func(l *config.Limits) {
		l.BreakerFailures, l.BreakerOpen, l.BrokerRate, l.BrokerBurst, l.Rate, l.Burst = 1, time.Nanosecond, 1, 3, 1, 3
	}), c)
	enter(t, l, "a")(&refresher.Failure{Class: refresher.Transient})
	var probe func(*refresher.Failure)
	require.Eventually(t, func() bool {
		var err error
		probe, err = l.Enter("a")
		return err == nil
	}, time.Minute, time.Millisecond)
	for range 20 {
		require.Equal(t, "breaker", later(t, l, "a").Why)
	}
	probe(nil)
	enter(t, l, "a")(nil) // the third of the burst
	require.Equal(t, "rate", later(t, l, "a").Why)
}

func TestRefusedCredentialsPauseEverything(t *testing.T) {
	denied := &refresher.Failure{Class: refresher.Denied}
	c := newClock(t0)
	l := newLimits(wide(), c)
	require.Zero(t, l.Paused())
	for _, wait := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 80 * time.Second} {
		underWay := []func(*refresher.Failure){enter(t, l, "a"), enter(t, l, "b"), enter(t, l, "a")}
		for _, done := range underWay { // refusals of one moment count once
			done(denied)
		}
		require.Equal(t, c.Now().Add(wait), l.Paused())
		require.Equal(t, refresher.LaterError{After: wait, Why: "credentials"}, later(t, l, "b"))
		c.Advance(wait - time.Second)
		require.Equal(t, refresher.LaterError{After: time.Second, Why: "credentials"}, later(t, l, "new"))
		c.Advance(time.Second)
		require.Zero(t, l.Paused())
	}
	enter(t, l, "a")(nil)
	enter(t, l, "a")(denied)
	require.Equal(t, c.Now().Add(10*time.Second), l.Paused(), "starts over after tokens were had")
}

func TestRefusedCredentialsOpenNoBreaker(t *testing.T) {
	c := newClock(t0)
	l := newLimits(wide(func(l *config.Limits) { l.BreakerFailures = 1 }), c)
	enter(t, l, "a")(&refresher.Failure{Class: refresher.Denied})
	c.Advance(hour)
	enter(t, l, "a")
}

// admitted counts how many calls get in during some seconds, each answered
// with f.
func admitted(l *refresher.Limits, c *clock, seconds int, f *refresher.Failure) int {
	n := 0
	for range seconds * 100 {
		c.Advance(10 * time.Millisecond)
		if done, err := l.Enter("a"); err == nil {
			n++
			done(f)
		}
	}
	return n
}

func TestRateLimitedHalvesTheRateWhichRecoversSlowly(t *testing.T) {
	limited := &refresher.Failure{Class: refresher.RateLimited}
	c := newClock(t0)
	l := newLimits(wide(func(l *config.Limits) { l.BrokerRate, l.BrokerBurst = 40, 2 }), c)
	dead := &refresher.Failure{Class: refresher.Dead} // leaves the rate as it is
	require.InDelta(t, 400, admitted(l, c, 10, dead), 4)
	enter(t, l, "b")(limited) // another broker's business
	require.InDelta(t, 400, admitted(l, c, 10, dead), 4)
	hit := func() { c.Advance(10 * time.Second); enter(t, l, "a")(limited) }
	hit()
	require.InDelta(t, 200, admitted(l, c, 10, dead), 4)
	hit()
	require.InDelta(t, 100, admitted(l, c, 10, dead), 4)

	// Two more with each second that brings tokens: from 10 to 40 takes 15.
	require.InDelta(t, 12+14+16+18+20, admitted(l, c, 5, nil), 4)
	admitted(l, c, 9, nil)
	require.Less(t, admitted(l, c, 1, dead), 40)
	admitted(l, c, 5, nil)
	require.InDelta(t, 400, admitted(l, c, 10, nil), 4, "and never above the full rate")

	for range 20 {
		hit()
	}
	require.InDelta(t, 40, admitted(l, c, 100, dead), 2, "a hundredth of the full rate is the least")
}

func TestManyAtOnce(t *testing.T) {
	const workers, rounds, most = 8, 500, 3
	l := must(refresher.NewLimits(refresher.LimitsOptions{Config: wide(func(l *config.Limits) {
		l.BrokerConcurrency, l.Rate, l.Burst, l.BrokerRate, l.BrokerBurst = most, 1e9, 1e9, 1e9, 1e9
	}), Credentials: credentials, Now: time.Now, OnBreaker: func(string, bool) {}}))
	outcomes := []*refresher.Failure{nil, {Class: refresher.Transient}, {Class: refresher.Dead}, {Class: refresher.Uncalled}}
	var running, entered atomic.Int32
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				done, err := l.Enter("a")
				var later *refresher.LaterError
				if err != nil {
					if !errors.As(err, &later) {
						t.Errorf("unexpected: %v", err)
					}
					continue
				}
				entered.Add(1)
				if n := running.Add(1); n > most {
					t.Errorf("%d at once", n)
				}
				running.Add(-1)
				done(outcomes[(w+i)%len(outcomes)])
				l.Paused()
			}
		})
	}
	wg.Wait()
	require.Positive(t, entered.Load())
	for range most { // every slot is free again
		enter(t, l, "a")
	}
	require.Equal(t, "concurrency", later(t, l, "a").Why)
}

// What a Retry-After asks for holds for its broker and no other. Beyond a minute one
// refresh a minute is let in, for as long as it says or until one succeeds.
func TestRetryAfterSlowsItsBroker(t *testing.T) {
	for _, class := range []refresher.Class{refresher.RateLimited, refresher.Transient} {
		for asked, want := range map[time.Duration]time.Duration{
			time.Second: time.Second, 30 * time.Second: 30 * time.Second, 61 * time.Second: time.Minute, hour: time.Minute, day: time.Minute,
		} {
			c := newClock(t0)
			l := newLimits(wide(), c)
			under := enter(t, l, "a")
			enter(t, l, "A")(&refresher.Failure{Class: class, RetryAfter: asked})
			under(nil) // a call under way takes nothing back
			require.Equal(t, refresher.LaterError{After: want, Why: "retry_after"}, later(t, l, "a"))
			require.Equal(t, want, l.SuspendedFor("a"))
			enter(t, l, "b")(nil)
			require.Zero(t, l.SuspendedFor("b"))
			c.Advance(want)
			let := 0
			for ; c.Now().Before(t0.Add(asked)); c.Advance(time.Second) {
				if l.SuspendedFor("a") > 0 {
					require.Equal(t, "retry_after", later(t, l, "a").Why)
					continue
				}
				enter(t, l, "a")(&refresher.Failure{Class: refresher.Dead})
				let++
			}
			require.Equal(t, max(int((asked-time.Second)/time.Minute), 0), let, asked)
			require.Zero(t, l.SuspendedFor("a"))
			enter(t, l, "a")(&refresher.Failure{Class: refresher.Dead})
			enter(t, l, "a")

			enter(t, l, "b")(&refresher.Failure{Class: class, RetryAfter: day})
			c.Advance(time.Minute)
			enter(t, l, "b")(nil)
			enter(t, l, "b")
		}
	}
	c := newClock(t0)
	l := newLimits(wide(), c)
	enter(t, l, "a")(&refresher.Failure{Class: refresher.Unlawful, RetryAfter: day})
	enter(t, l, "a")
}
