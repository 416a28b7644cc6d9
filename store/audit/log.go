package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
)

var (
	// ErrFull: too many records are waiting.
	ErrFull = errors.New("the audit log can't keep up, or its stream is away")
	// ErrUnwritten: a record could not be written in time.
	ErrUnwritten = errors.New("the audit log did not take a record in time")
	// ErrClosed: the log has been stopped.
	ErrClosed = errors.New("the audit log is closed")
)

// Options for New. Heads, Log and Metrics may be nil.
type Options struct {
	JetStream jetstream.JetStream
	Subjects  events.Subjects
	// Worker is the name of the writer; NewID makes the name of its chain unique.
	Worker string
	NewID  func() string
	Now    func() time.Time
	// Heads stores the head of the chain for Retention, once every HeadInterval (15 s).
	Heads        Heads
	Retention    time.Duration
	HeadInterval time.Duration
	Log          *zap.Logger
	Metrics      prometheus.Registerer
	// Publish, if set, stores a message in the stream, as JetStream's PublishMsg does.
	Publish func(context.Context, *nats.Msg) (sequence uint64, err error)
}

// maxQueue bounds the bytes of waiting records.
const maxQueue = 32 << 20

// maxBatch bounds the bytes of one message, if NATS allows as many.
const maxBatch = 128 << 10

// Log writes one chain. A nil Log records nothing. It is safe for concurrent use.
//
// It publishes one message at a time. Records that come meanwhile share the next one.
type Log struct {
	publish      func(context.Context, *nats.Msg) (sequence uint64, err error)
	stream       string
	subject      string
	chain        string
	worker       string
	now          func() time.Time
	heads        Heads
	retention    time.Duration
	headInterval time.Duration
	log          *zap.Logger
	metrics      *metrics
	maxBatch     int

	mu         sync.Mutex
	queue      []*entry
	size       int // bytes in queue
	withdrawn  int // withdrawn entries in queue
	lost       int // records dropped since the last message
	publishing []*entry
	nextExpire time.Time // of the next expire; zero: none
	closed     bool
	head       Head

	wake   chan struct{} // there is something to write
	first  chan struct{} // the chain has its first message
	cancel context.CancelFunc
	atWork sync.WaitGroup
}

// entry is an encoded record.
type entry struct {
	data      []byte // nil: withdrawn
	action    Action
	inMessage bool // part of a message
	// done is called once, without the lock; nil: nobody waits.
	done func(error)
	// until is when expire calls done; zero: never.
	until time.Time
}

// New returns a log, which writes after Start.
func New(o Options) (*Log, error) {
	if err := options.Require("the audit log", o, "JetStream", "NewID", "Now"); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	l := &Log{
		publish: o.Publish, worker: plain(o.Worker, "."), chain: plain(o.Worker+"-"+o.NewID(), ""), now: o.Now,
		heads: o.Heads, retention: o.Retention, headInterval: cmp.Or(o.HeadInterval, 15*time.Second), log: o.Log,
		maxBatch: maxBatch, wake: make(chan struct{}, 1), first: make(chan struct{}, 1), cancel: func() {},
	}
	if l.publish == nil {
		l.publish = (&publisher{conn: o.JetStream.Conn()}).publish
	}
	if most := int(o.JetStream.Conn().MaxPayload()); most > 0 {
		l.maxBatch = min(l.maxBatch, most/2)
	}
	part := o.Subjects.AuditPartition(l.chain)
	l.stream, l.subject = part.Stream, part.Chain(l.chain)
	l.metrics = newMetrics(o.Metrics, l.waiting)
	l.head = Head{Chain: l.chain, Worker: l.worker, Stream: l.stream, Hash: origin(l.chain).String()}
	return l, nil
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
		l.atWork.Go(func() { l.storeHeads(ctx) })
	}
}

// Stop writes the waiting records and the end of the chain. If ctx ends first, the rest is
// lost, and Stop returns an error.
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

// Write returns once JetStream has stored the record. If ctx ends first, the error wraps
// ErrUnwritten, and the record is withdrawn unless it is being published.
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

// Put is Write for callers that don't wait: done is called once, with what Write would
// return with that timeout. It delays later records, so it must not block.
func (l *Log) Put(r Record, within time.Duration, done func(error)) {
	if l == nil {
		done(nil)
		return
	}
	if _, err := l.enqueue(r, time.Now().Add(within), done, false); err != nil {
		done(err)
	}
}

// Add writes a record without waiting. If the queue is full, the record is lost, and the
// log counts it as such.
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

// enqueue encodes a record outside of the lock. The last one of a chain always has room.
func (l *Log) enqueue(r Record, until time.Time, done func(error), last bool) (*entry, error) {
	if r.At.IsZero() {
		r.At = l.now()
	}
	r.At = r.At.UTC()
	data, err := r.encode(l.maxBatch - overhead)
	if err != nil {
		return nil, err
	}
	e := &entry{data: data, action: r.Action, done: done, until: until}
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
	l.signal()
	return e, nil
}

// withdraw takes back a record that is not being published yet.
func (l *Log) withdraw(e *entry) {
	if e.inMessage {
		return
	}
	l.size -= len(e.data)
	e.data = nil
	l.withdrawn++
}

// compact shortens a queue of mostly withdrawn entries.
func (l *Log) compact() {
	if 2*l.withdrawn > len(l.queue) {
		l.queue = slices.DeleteFunc(l.queue, func(e *entry) bool { return e.data == nil })
		l.withdrawn = 0
	}
}

// wakeAt makes expire run at a time, unless it runs earlier. One timer is enough: the
// callers have similar timeouts, and few of them run out.
func (l *Log) wakeAt(at time.Time) {
	if l.nextExpire.IsZero() || at.Before(l.nextExpire) {
		l.nextExpire = at
		time.AfterFunc(time.Until(at), l.expire)
	}
}

// expire ends the wait of the callers whose time is over.
func (l *Log) expire() {
	var late []func(error)
	l.mu.Lock()
	l.nextExpire = time.Time{}
	now, next := time.Now(), time.Time{}
	for _, part := range [][]*entry{l.publishing, l.queue} {
		for _, e := range part {
			switch {
			case e.done == nil || e.until.IsZero():
			case now.Before(e.until):
				if next.IsZero() || e.until.Before(next) {
					next = e.until
				}
			default:
				late = append(late, e.done)
				e.done = nil
				l.withdraw(e)
			}
		}
	}
	l.compact()
	if !next.IsZero() {
		l.wakeAt(next)
	}
	l.mu.Unlock()
	for _, done := range late {
		done(fmt.Errorf("%w: %w", ErrUnwritten, context.DeadlineExceeded))
	}
}

func (l *Log) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// waiting returns the number of waiting records.
func (l *Log) waiting() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return float64(len(l.queue) - l.withdrawn)
}
