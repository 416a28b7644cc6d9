package refresher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
)

// Urgency orders refreshes that wait for the same limits.
type Urgency struct {
	// Unknown: the outcome of the last call is not known. These go first: the institution
	// may take the refresh token for a moment longer.
	Unknown bool
	// Idle: nobody has requested the grant's access token since its last refresh. These
	// wait behind those in use.
	Idle bool
	// ExpiresAt is the end of the access token: the nearest goes first. Zero: there is
	// none, which is the most urgent.
	ExpiresAt time.Time
}

func (u Urgency) before(o Urgency) bool {
	if u.Unknown != o.Unknown {
		return u.Unknown
	}
	if u.Idle != o.Idle {
		return o.Idle
	}
	return u.ExpiresAt.Before(o.ExpiresAt)
}

// Queue lets refreshes wait for Limits, the most urgent first, and none of one broker
// for those of another. It rejects with a *LaterError what would wait for long, and,
// when it is full, what waits for limits of its own broker. It rejects none that wait
// for a slot only: that would only make more work.
type Queue struct {
	limits      *Limits
	now         func() time.Time
	slots, room int

	mu      sync.Mutex
	running int
	waiting int
	brokers map[string]*line
	timer   *time.Timer
	closed  bool
}

type line struct {
	waiters []*waiter // the most urgent first
	running int
	// notBefore is when the broker's limits may let the next one in.
	notBefore time.Time
	back      time.Time // when the last that was rejected comes back
}

type waiter struct {
	urgency Urgency
	result  chan admission // receives the outcome of waiting, once
}

type admission struct {
	done func(*Failure)
	err  error
}

// QueueOptions for NewQueue; all are required.
type QueueOptions struct {
	Limits *Limits
	// Slots is how many refreshes run at once, Room how many wait.
	Slots, Room int
	Now         func() time.Time
}

// NewQueue returns a queue in front of limits.
func NewQueue(o QueueOptions) (*Queue, error) {
	if err := options.Require("a queue of refreshes", o, "Limits", "Slots", "Room", "Now"); err != nil {
		return nil, err
	}
	return &Queue{limits: o.Limits, now: o.Now, slots: o.Slots, room: o.Room, brokers: map[string]*line{}}, nil
}

// Enter waits for permission to refresh at a broker. On success the caller must call done
// once with the outcome. The error is a *LaterError, ErrStopping or ctx's.
func (q *Queue) Enter(ctx context.Context, broker string, u Urgency) (done func(*Failure), err error) {
	w := &waiter{urgency: u, result: make(chan admission, 1)}
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil, ErrStopping
	}
	l := q.join(broker, w)
	if q.waiting > q.room {
		q.rejectOne()
	}
	q.mu.Unlock()

	select {
	case a := <-w.result:
		return a.done, a.err
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leave(l, w)
	select {
	case a := <-w.result: // let in at the last moment
		return a.done, a.err
	default:
		return nil, ctx.Err()
	}
}

// Try is Enter without waiting: not ok where Enter would wait, or reject.
func (q *Queue) Try(broker string, u Urgency) (done func(*Failure), ok bool) {
	w := &waiter{urgency: u, result: make(chan admission, 1)}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, false
	}
	q.leave(q.join(broker, w), w)
	select {
	case a := <-w.result:
		return a.done, a.err == nil
	default:
		return nil, false
	}
}

// Crowded reports whether refreshes at a broker wait for a slot, and not for limits.
func (q *Queue) Crowded(broker string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, limited := q.limits.AtLimit(broker)
	return q.running >= q.slots && !limited && !q.limits.UsedUp()
}

// join puts a waiter in its line, and admits what it can. The caller holds the lock.
func (q *Queue) join(broker string, w *waiter) *line {
	broker = events.BrokerKey(broker)
	l := q.brokers[broker]
	if l == nil {
		l = &line{}
		q.brokers[broker] = l
	}
	behind := sort.Search(len(l.waiters), func(i int) bool { return w.urgency.before(l.waiters[i].urgency) })
	l.waiters = slices.Insert(l.waiters, behind, w)
	q.waiting++
	q.pump()
	return l
}

// leave takes a waiter out of its line if it is there. The caller holds the lock.
func (q *Queue) leave(l *line, w *waiter) {
	if i := slices.Index(l.waiters, w); i >= 0 {
		l.waiters = slices.Delete(l.waiters, i, i+1)
		q.waiting--
	}
}

// ErrStopping: this worker takes on no more refreshes; another will.
var ErrStopping = fmt.Errorf("the worker is stopping: %w", context.Canceled)

// Close rejects all that wait, and all that come later.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	if q.timer != nil {
		q.timer.Stop()
	}
	for _, l := range q.brokers {
		q.rejectAll(l, ErrStopping)
	}
}

// pump admits what it can. The caller holds the lock.
func (q *Queue) pump() {
	for q.running < q.slots {
		name, l := q.next()
		if l == nil {
			break
		}
		release, err := q.limits.Enter(name)
		var later *LaterError
		switch {
		case err == nil:
			q.admit(l, release)
		case errors.As(err, &later) && (later.Why == "rate" || later.Why == "concurrency"):
			l.notBefore = q.now().Add(later.After)
		default: // it will take long, for all that wait there
			q.rejectAll(l, err)
		}
	}
	q.wake()
}

// next picks the broker with the fewest running refreshes, so that none starves, and
// among equals the one with the most urgent waiter.
func (q *Queue) next() (name string, best *line) {
	now := q.now()
	for broker, l := range q.brokers {
		if len(l.waiters) == 0 || now.Before(l.notBefore) {
			continue
		}
		if best == nil || l.running < best.running ||
			l.running == best.running && l.waiters[0].urgency.before(best.waiters[0].urgency) {
			name, best = broker, l
		}
	}
	return name, best
}

func (q *Queue) admit(l *line, release func(*Failure)) {
	q.running++
	l.running++
	q.answer(l, l.waiters[0], admission{done: func(f *Failure) {
		release(f)
		q.mu.Lock()
		defer q.mu.Unlock()
		q.running--
		l.running--
		l.notBefore = time.Time{}
		q.pump()
	}})
}

// answer takes a waiter out of its line with the outcome of waiting.
func (q *Queue) answer(l *line, w *waiter, a admission) {
	q.leave(l, w)
	w.result <- a
}

func (q *Queue) rejectAll(l *line, err error) {
	for len(l.waiters) > 0 {
		q.answer(l, l.waiters[0], admission{err: err})
	}
}

// rejectOne makes room, if it can: the least urgent waiter of the longest line that waits
// for limits of its broker comes back later, behind those rejected before it. Else the
// backlog of one slow broker would take all the room from every other broker.
func (q *Queue) rejectOne() {
	var longest *line
	var each time.Duration
	for broker, l := range q.brokers {
		if len(l.waiters) == 0 || longest != nil && len(l.waiters) <= len(longest.waiters) {
			continue
		}
		if every, limited := q.limits.AtLimit(broker); limited {
			longest, each = l, every
		}
	}
	if longest == nil {
		return
	}
	last := longest.waiters[len(longest.waiters)-1]
	q.answer(longest, last, admission{err: &LaterError{After: longest.comeBack(q.now(), each), Why: "queue"}})
}

// Bounds of when a refresh comes back that found the queue full. The upper one bounds
// how long a broker that is quick again may stay idle.
const (
	queueFullMin = 2 * time.Second
	queueFullMax = time.Minute
)

// comeBack is in how long the next that is rejected comes back: one by one at the
// broker's rate, since all at once would be rejected again.
func (l *line) comeBack(now time.Time, each time.Duration) time.Duration {
	in := min(max(l.back.Add(each).Sub(now), queueFullMin), queueFullMax)
	l.back = now.Add(in)
	return in
}

// wake pumps again when the first line that waits for time may continue.
func (q *Queue) wake() {
	var soonest time.Time
	for _, l := range q.brokers {
		if len(l.waiters) > 0 && !l.notBefore.IsZero() && (soonest.IsZero() || l.notBefore.Before(soonest)) {
			soonest = l.notBefore
		}
	}
	if soonest.IsZero() {
		return
	}
	if q.timer != nil {
		q.timer.Stop()
	}
	q.timer = time.AfterFunc(max(soonest.Sub(q.now()), time.Millisecond), func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.pump()
	})
}
