package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
)

var (
	// ErrFull: too many records wait to be written.
	ErrFull = errors.New("the audit log can't keep up, or its stream is away")
	// ErrUnwritten: a record could not be written in time.
	ErrUnwritten = errors.New("the audit log did not take a record in time")
	// ErrClosed: the log has written its end.
	ErrClosed = errors.New("the audit log is closed")
)

// Options for New. Heads, Log and Metrics may be nil.
type Options struct {
	JetStream jetstream.JetStream
	Subjects  events.Subjects
	// Worker is who writes; NewID makes its chain's name unique.
	Worker string
	NewID  func() string
	Now    func() time.Time
	// Heads is where the heads of chains are kept, for Retention, and how often
	// the own one is written there; 0: every 15 seconds.
	Heads     Heads
	Retention time.Duration
	Anchor    time.Duration
	Log       *zap.Logger
	Metrics   prometheus.Registerer
}

// maxQueue bounds the bytes of records that wait.
const maxQueue = 32 << 20

// maxBatch bounds the bytes of one message, where NATS takes as many.
const maxBatch = 128 << 10

// Log writes one chain. A nil Log keeps no record. It is safe for concurrent
// use.
//
// One message is on its way at a time; records that come meanwhile make up the
// next, so that under load many share a round trip.
type Log struct {
	js       jetstream.JetStream
	stream   string
	subject  string
	chain    string
	worker   string
	now      func() time.Time
	heads    Heads
	keep     time.Duration
	every    time.Duration
	log      *zap.Logger
	metrics  *metrics
	maxBatch int

	mu        sync.Mutex
	queue     []*entry
	size      int // bytes in queue
	withdrawn int // entries in queue that are void
	lost      int // records dropped since the last message
	onWay     []*entry
	alarm     time.Time // when expire comes next; zero: it does not
	closed    bool
	head      Head

	wake   chan struct{} // there is something to write
	first  chan struct{} // the chain has a head
	cancel context.CancelFunc
	atWork sync.WaitGroup
}

// entry is an encoded record on its way.
type entry struct {
	data   []byte // nil: withdrawn
	action Action
	taken  bool // it is part of a message
	// told is called once, without the lock; nil: nobody waits, or not any more.
	told func(error)
	// until is for how long somebody waits; zero: no bound is known here.
	until time.Time
}

// New returns a log that writes once Start was called.
func New(o Options) *Log {
	l := &Log{
		js: o.JetStream, stream: o.Subjects.AuditStream(), worker: plain(o.Worker, "."), chain: plain(o.Worker+"-"+o.NewID(), ""), now: o.Now,
		heads: o.Heads, keep: o.Retention, every: o.Anchor, log: o.Log,
		maxBatch: maxBatch, wake: make(chan struct{}, 1), first: make(chan struct{}, 1), cancel: func() {},
	}
	if l.every == 0 {
		l.every = 15 * time.Second
	}
	if l.log == nil {
		l.log = zap.NewNop()
	}
	if most := int(o.JetStream.Conn().MaxPayload()); most > 0 {
		l.maxBatch = min(l.maxBatch, most/2)
	}
	l.subject = o.Subjects.Audit(l.chain)
	l.metrics = newMetrics(o.Metrics, l.waiting)
	l.head = Head{Chain: l.chain, Worker: l.worker, Hash: origin(l.chain).String()}
	return l
}

// Chain returns the name of the chain.
func (l *Log) Chain() string { return l.chain }

// Start begins the chain. It does not wait for the stream.
func (l *Log) Start() {
	if l == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.head.Begun = l.now().UTC()
	l.Add(Record{Action: Begin})
	l.atWork.Go(func() { l.write(ctx) })
	if l.heads != nil {
		l.atWork.Go(func() { l.anchor(ctx) })
	}
}

// Stop writes what waits and the end of the chain. When ctx ends before that,
// the rest is lost and the error says so.
func (l *Log) Stop(ctx context.Context) error {
	if l == nil {
		return nil
	}
	stored := make(chan struct{})
	_, err := l.enqueue(Record{Action: End}, time.Time{}, func(error) { close(stored) }, true)
	if errors.Is(err, ErrClosed) {
		return nil
	}
	if err == nil {
		select {
		case <-stored:
		case <-ctx.Done():
			err = fmt.Errorf("ending the audit log: %w", ErrUnwritten)
		}
	}
	l.cancel()
	l.atWork.Wait()
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.log.Error("audit records are lost: the worker stopped before they could be written", zap.Int("records", len(l.queue)-l.withdrawn), zap.Error(err))
		return err
	}
	return l.putHead(ctx)
}

// Write returns once JetStream holds the record. When ctx ends first, or no more
// can wait, the error wraps ErrUnwritten or ErrFull, and the record is withdrawn
// unless it is on its way already.
func (l *Log) Write(ctx context.Context, r Record) error {
	if l == nil {
		return nil
	}
	stored := make(chan struct{})
	e, err := l.enqueue(r, time.Time{}, func(error) { close(stored) }, false)
	if err != nil {
		return err
	}
	select {
	case <-stored:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.withdraw(e)
	l.compact()
	return fmt.Errorf("%w: %w", ErrUnwritten, ctx.Err())
}

// Put is Write for callers who don't wait: told is called once, with what Write
// would return when a context ended so much later. It holds up the records that
// come after, so it must not wait for anything.
func (l *Log) Put(r Record, within time.Duration, told func(error)) {
	if l == nil {
		told(nil)
		return
	}
	if _, err := l.enqueue(r, time.Now().Add(within), told, false); err != nil {
		told(err)
	}
}

// Add has a record written soon. It does not wait: when no more can wait the
// record is lost, which the log then tells.
func (l *Log) Add(r Record) {
	if l == nil {
		return
	}
	_, err := l.enqueue(r, time.Time{}, nil, false)
	if err == nil {
		return
	}
	l.metrics.lost.Inc()
	l.mu.Lock()
	l.lost++
	first := l.lost == 1
	l.mu.Unlock()
	if first {
		l.log.Error("audit records are lost", zap.String("action", string(r.Action)), zap.Error(err))
	}
}

// enqueue encodes a record outside of the lock. The last one of a chain finds
// room always.
func (l *Log) enqueue(r Record, until time.Time, told func(error), last bool) (*entry, error) {
	if r.At.IsZero() {
		r.At = l.now()
	}
	r.At = r.At.UTC()
	data, err := r.encode(l.maxBatch - overhead)
	if err != nil {
		return nil, err
	}
	e := &entry{data: data, action: r.Action, told: told, until: until}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, ErrClosed
	case l.size+len(data) > maxQueue && !last:
		return nil, ErrFull
	}
	l.closed = last
	l.queue = append(l.queue, e)
	l.size += len(data)
	if !until.IsZero() {
		l.wakeAt(until)
	}
	l.awake()
	return e, nil
}

// withdraw takes a record back that is not on its way yet.
func (l *Log) withdraw(e *entry) {
	if e.taken {
		return
	}
	l.size -= len(e.data)
	e.data = nil
	l.withdrawn++
}

// compact shortens a queue that is void for the most part.
func (l *Log) compact() {
	if 2*l.withdrawn > len(l.queue) {
		l.queue = slices.DeleteFunc(l.queue, func(e *entry) bool { return e.data == nil })
		l.withdrawn = 0
	}
}

// wakeAt has expire come at a time, if it would come later. One timer serves all
// who wait: they come with much the same patience, and few wait in vain.
func (l *Log) wakeAt(at time.Time) {
	if l.alarm.IsZero() || at.Before(l.alarm) {
		l.alarm = at
		time.AfterFunc(time.Until(at), l.expire)
	}
}

// expire tells those who have waited long enough.
func (l *Log) expire() {
	var late []func(error)
	l.mu.Lock()
	l.alarm = time.Time{}
	now, next := time.Now(), time.Time{}
	for _, part := range [][]*entry{l.onWay, l.queue} {
		for _, e := range part {
			switch {
			case e.told == nil || e.until.IsZero():
			case now.Before(e.until):
				if next.IsZero() || e.until.Before(next) {
					next = e.until
				}
			default:
				late = append(late, e.told)
				e.told = nil
				l.withdraw(e)
			}
		}
	}
	l.compact()
	if !next.IsZero() {
		l.wakeAt(next)
	}
	l.mu.Unlock()
	for _, told := range late {
		told(fmt.Errorf("%w: %w", ErrUnwritten, context.DeadlineExceeded))
	}
}

func (l *Log) awake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// waiting returns how many records wait.
func (l *Log) waiting() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return float64(len(l.queue) - l.withdrawn)
}
