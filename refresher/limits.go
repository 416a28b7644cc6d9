package refresher

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
)

// LaterError says that a refresh may not start now, and when to come back.
type LaterError struct {
	After time.Duration
	// Why is one of "rate", "concurrency", "breaker", "retry_after", "credentials", from a
	// Queue "queue", and from a Refresher "lease".
	Why string
	// LatestAttempt is when a try must begin to keep the grant served; zero: not known, or any time.
	LatestAttempt time.Time
}

// Spread returns a wait of at least After, longer by a chance in [0, 1) so that not
// all come back at once, but not past the last try.
func (e *LaterError) Spread(now time.Time, chance float64) time.Duration {
	more := e.After / 2
	if room := e.LatestAttempt.Sub(now.Add(e.After)); room >= 0 {
		more = min(more, room)
	}
	return e.After + time.Duration(chance*float64(more))
}

func (e *LaterError) Error() string { return fmt.Sprintf("not before %s: %s", e.After, e.Why) }

// Limits decides when a refresh may start: by rate and concurrency, overall and per broker
// type; by a circuit breaker and Retry-After per broker type; and by a pause of everything
// while Mesh refuses our credentials. The rates are the installation's: each worker takes its
// share. It never makes a caller wait: what may not start now gets the time to come back.
type Limits struct {
	cfg         config.Limits
	credentials config.Backoff
	now         func() time.Time
	workers     func() int
	onBreaker   func(broker string, open bool)

	overall *adaptiveRate

	mu      sync.Mutex
	divided int // among how many workers the rates are divided; 0: nobody may start
	brokers map[string]*brokerLimits
	denials int // of our credentials, in a row
	paused  time.Time
}

type brokerLimits struct {
	rate    *adaptiveRate
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	opened  time.Time // when the breaker opened last
	// Its last Retry-After, and until when no refresh may start for that.
	retrySince, retryUntil, waitUntil time.Time
	running                           int
}

// maxBrokerWait bounds how long a Retry-After, which may be about one user, keeps its broker
// waiting. After that one refresh at a time may start until one succeeds.
const maxBrokerWait = time.Minute

// LimitsOptions for NewLimits. Workers may be nil.
type LimitsOptions struct {
	Config config.Limits
	// Credentials spaces the pauses while Mesh refuses our credentials.
	Credentials config.Backoff
	Now         func() time.Time
	// Workers returns how many workers share the limits, or 0 while that is not known and
	// no refresh may start; nil: this one is alone.
	Workers func() int
	// OnBreaker is called when a broker's breaker opens or closes, with the broker's key.
	OnBreaker func(broker string, open bool)
}

// NewLimits returns limits at their full rates.
func NewLimits(o LimitsOptions) (*Limits, error) {
	if err := options.Require("the limits of refreshes", o, "Config", "Credentials", "Now", "OnBreaker"); err != nil {
		return nil, err
	}
	if o.Workers == nil {
		o.Workers = func() int { return 1 }
	}
	return &Limits{
		cfg: o.Config, credentials: o.Credentials, now: o.Now, workers: o.Workers, onBreaker: o.OnBreaker, divided: 1,
		overall: newAdaptiveRate(o.Config.Rate, o.Config.Burst),
		brokers: map[string]*brokerLimits{},
	}, nil
}

// noShare is after how long a worker checks again whether it may start refreshes.
const noShare = time.Second

// divide gives each rate this worker's share. The caller holds the lock.
func (l *Limits) divide(now time.Time) {
	workers := l.workers()
	if workers == l.divided {
		return
	}
	l.divided = workers
	if workers == 0 {
		return
	}
	l.overall.divide(now, workers)
	for _, b := range l.brokers {
		b.rate.divide(now, workers)
	}
}

// Outcomes for the breaker.
var (
	errRefresh   = errors.New("refresh failed")
	errNoVerdict = errors.New("no verdict") // it says nothing about the broker
)

// notSent is the outcome of a refresh that ended before any call.
const notSent Class = "uncalled"

// Enter asks for permission to refresh at a broker. On success the caller must call done
// once with the outcome (nil for tokens). The error is a *LaterError.
func (l *Limits) Enter(broker string) (done func(*Failure), err error) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.paused) {
		return nil, &LaterError{After: l.paused.Sub(now), Why: "credentials"}
	}
	l.divide(now)
	b := l.broker(broker)
	if now.Before(b.waitUntil) {
		return nil, &LaterError{After: b.waitUntil.Sub(now), Why: "retry_after"}
	}
	if l.divided == 0 {
		return nil, &LaterError{After: noShare, Why: "rate"}
	}
	if b.running >= l.cfg.BrokerConcurrency {
		return nil, &LaterError{After: time.Second, Why: "concurrency"}
	}
	if b.breaker.State() == gobreaker.StateOpen {
		return nil, &LaterError{After: l.cfg.BreakerOpen / 2, Why: "breaker"}
	}
	if wait := b.rate.take(now); wait > 0 {
		return nil, &LaterError{After: wait, Why: "rate"}
	}
	if wait := l.overall.take(now); wait > 0 {
		b.rate.giveBack(now)
		return nil, &LaterError{After: wait, Why: "rate"}
	}
	report, err := b.breaker.Allow()
	if err != nil { // half open, and the probe is under way
		b.rate.giveBack(now)
		l.overall.giveBack(now)
		return nil, &LaterError{After: l.cfg.BreakerOpen / 2, Why: "breaker"}
	}
	b.running++
	var until time.Time
	if now.Before(b.retryUntil) {
		until = now.Add(min(b.retryUntil.Sub(now), maxBrokerWait))
		b.waitUntil = until
	}
	return func(f *Failure) { l.done(b, report, f, now, until) }, nil
}

// done takes the outcome of a refresh that began at a time, and made its broker wait for
// others until another time.
func (l *Limits) done(b *brokerLimits, report func(error), f *Failure, began, waited time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.running--
	now := l.now()
	if f != nil && f.RetryAfter > 0 && f.Class != Unlawful {
		if until := now.Add(f.RetryAfter); until.After(b.retryUntil) {
			b.retrySince, b.retryUntil = now, until
		}
		if until := now.Add(min(f.RetryAfter, maxBrokerWait)); until.After(b.waitUntil) {
			b.waitUntil = until
		}
	}
	if f == nil && began.After(b.retrySince) {
		b.retryUntil, b.waitUntil = time.Time{}, time.Time{} // it takes others
	}
	switch {
	case f == nil:
		l.denials = 0
		b.rate.raise(now)
		l.overall.raise(now)
		report(nil)
	case f.Class == RateLimited:
		b.rate.lower(now)
		report(nil)
	case f.Class == Denied:
		if !now.Before(l.paused) { // answers to calls under way count once
			l.paused = now.Add(delay(l.credentials, l.denials, 1))
			l.denials++
		}
		report(errNoVerdict)
	case f.Class == notSent: // what was not used is there for others
		b.rate.giveBack(now)
		l.overall.giveBack(now)
		if b.waitUntil.Equal(waited) {
			b.waitUntil = time.Time{}
		}
		report(errNoVerdict)
	case f.Class == Transient:
		report(errRefresh)
	default: // the broker answered, about one grant
		report(nil)
	}
}

// AtLimit reports whether a broker's own rate or concurrency keeps refreshes from
// starting now, and the time between two refreshes at that rate.
func (l *Limits) AtLimit(broker string) (each time.Duration, limited bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.divide(l.now())
	b := l.broker(broker)
	each = time.Duration(float64(time.Second) / float64(b.rate.limiter.Limit()))
	return each, l.divided == 0 || b.running >= l.cfg.BrokerConcurrency || b.rate.limiter.TokensAt(l.now()) < 1
}

// UsedUp reports whether the rate of all brokers together keeps refreshes from starting now.
func (l *Limits) UsedUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.divide(l.now())
	return l.overall.limiter.TokensAt(l.now()) < 1
}

// SuspendedFor returns how long no refresh may start at a broker, because of its breaker,
// its Retry-After or a pause of everything; 0: one may start.
func (l *Limits) SuspendedFor(broker string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if now.Before(l.paused) {
		return l.paused.Sub(now)
	}
	b := l.broker(broker)
	asked := max(b.waitUntil.Sub(now), 0)
	if b.breaker.State() != gobreaker.StateOpen {
		return asked
	}
	return max(asked, b.opened.Add(l.cfg.BreakerOpen).Sub(now), time.Second)
}

func (l *Limits) broker(name string) *brokerLimits {
	name = events.BrokerKey(name)
	b, ok := l.brokers[name]
	if !ok {
		b = &brokerLimits{
			rate: newAdaptiveRate(l.cfg.BrokerRate, l.cfg.BrokerBurst),
			breaker: gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
				Name: name, MaxRequests: 1, Timeout: l.cfg.BreakerOpen,
				IsExcluded: func(err error) bool { return errors.Is(err, errNoVerdict) },
				ReadyToTrip: func(c gobreaker.Counts) bool {
					return int(c.ConsecutiveFailures) >= l.cfg.BreakerFailures
				},
				OnStateChange: func(name string, _, to gobreaker.State) {
					b.opened = l.now()
					l.onBreaker(name, to == gobreaker.StateOpen)
				},
			}),
		}
		b.rate.divide(l.now(), max(l.divided, 1))
		l.brokers[name] = b
	}
	return b
}

// adaptiveRate is a token bucket. "Too many" halves its rate, which comes back by a
// twentieth of the full rate a second.
type adaptiveRate struct {
	// whole and burst are the installation's, full is this worker's share of the rate.
	whole, full rate.Limit
	burst       int
	limiter     *rate.Limiter
	changed     time.Time
}

func newAdaptiveRate(perSecond float64, burst int) *adaptiveRate {
	limit := rate.Limit(perSecond)
	return &adaptiveRate{whole: limit, full: limit, burst: burst, limiter: rate.NewLimiter(limit, burst)}
}

// divide makes this the share of one of so many workers. A rate that "too many" has
// lowered stays as low in proportion.
func (a *adaptiveRate) divide(now time.Time, workers int) {
	share := a.whole / rate.Limit(workers)
	limit := share
	if lowered := a.limiter.Limit(); lowered < a.full {
		limit = lowered * share / a.full
	}
	a.limiter.SetLimitAt(now, limit)
	a.limiter.SetBurstAt(now, max(a.burst/workers, 1))
	a.full = share
}

// take takes a token, or returns how long there will be none.
func (a *adaptiveRate) take(now time.Time) time.Duration {
	r := a.limiter.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

func (a *adaptiveRate) giveBack(now time.Time) { a.limiter.AllowN(now, -1) }

func (a *adaptiveRate) lower(now time.Time) {
	if now.Sub(a.changed) < time.Second {
		return // answers to one burst count once
	}
	a.changed = now
	a.limiter.SetLimitAt(now, max(a.limiter.Limit()/2, a.full/100))
}

func (a *adaptiveRate) raise(now time.Time) {
	if a.limiter.Limit() >= a.full || now.Sub(a.changed) < time.Second {
		return
	}
	a.changed = now
	a.limiter.SetLimitAt(now, min(a.limiter.Limit()+a.full/20, a.full))
}
