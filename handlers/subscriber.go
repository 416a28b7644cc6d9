// Package handlers reads messages from NATS, one handler a kind of message,
// and answers requests for tokens. A handler decodes, has the store or the
// refresher act, and maps the outcome to an acknowledgement.
package handlers

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store/streams"
)

// Subscriber is a Watermill subscriber over JetStream pull consumers. It
// bounds how many messages are handled at once, keeps a message that takes
// long from being delivered again, and lets a handler choose when a message
// comes back. (watermill-nats has no way to do the last two, and closes the
// connection that it is given.)
type Subscriber struct {
	streams  *streams.Topology
	ackWait  time.Duration
	sources  map[string]Source
	slots    map[string]slots // by subject
	log      *zap.Logger
	closing  context.Context
	close    context.CancelFunc
	inFlight sync.WaitGroup
}

// Source says how the messages of one subject are consumed.
type Source struct {
	Stream string
	// Concurrency is how many messages are handled at once.
	Concurrency int
	// Shared, if set, is common to the sources that share one bound. Together they
	// handle what one alone may, and one more for each further source, since each
	// holds a place while it waits for a message.
	Shared string
}

// NewSubscriber returns a subscriber for the given subjects.
func NewSubscriber(streams *streams.Topology, ackWait time.Duration, sources map[string]Source, log *zap.Logger) *Subscriber {
	ctx, cancel := context.WithCancel(context.Background())
	return &Subscriber{streams: streams, ackWait: ackWait, sources: sources, slots: slotsOf(sources), log: log, closing: ctx, close: cancel}
}

// delivery accompanies a message through its handler.
type delivery struct {
	// Subject and Attempt (from 1) of the message.
	Subject string
	Attempt int
	// Taken is when NATS took it in, Stored when it first did if the message was
	// replayed.
	Taken, Stored time.Time
	// Behind is how many messages waited behind it.
	Behind uint64
	// Event has the CloudEvents attributes in its headers; nil: none are there.
	Event events.Headers
	// EventID is the id under which its publisher knows it.
	EventID func() string
	// User is whose the message is, if it decoded.
	User string
	// Users are whom the body of a sealed message names; Opened: it was opened, or
	// no key ever will.
	Users  []string
	Opened bool
	// named are whom a parked message names, and letter is the dead letter that it
	// became.
	named  []string
	letter string
	// place is where the message lies; zero: not known.
	place place
	// Trace is the trace in which the message was sent.
	Trace tracing.TraceContext
	// RetryIn is when a message that is not acknowledged comes back.
	RetryIn time.Duration
	// slot, if set, gives back the slot that the message holds.
	slot func()
}

// freeSlot gives back the slot of a message that is still at work, for others to
// be handled.
func (d *delivery) freeSlot() {
	if d.slot != nil {
		d.slot()
	}
}

type deliveryKey struct{}

// deliveryOf returns the delivery of a message that came from a Subscriber.
func deliveryOf(msg *message.Message) *delivery {
	d, ok := msg.Context().Value(deliveryKey{}).(*delivery)
	if !ok {
		return &delivery{Attempt: 1}
	}
	return d
}

// Subscribe implements message.Subscriber. The channel closes after ctx ends
// or Close is called; messages already in it are still handled.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	source, ok := s.sources[topic]
	if !ok {
		return nil, errors.New("no source for subject " + topic)
	}
	if _, err := s.streams.Consumer(ctx, source.Stream, topic); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.closing, cancel)
	f := &feed{out: make(chan *message.Message), slots: s.slots[topic]}
	s.inFlight.Add(1)
	go func() {
		defer s.inFlight.Done()
		defer cancel()
		defer stop()
		s.consume(ctx, topic, source, f)
		f.sending.Wait()
		close(f.out)
	}()
	return f.out, nil
}

// feed is where the messages of one subscription go.
type feed struct {
	out chan *message.Message
	// sending counts those who may still send to out.
	sending sync.WaitGroup
	slots   slots
}

// pullWait bounds one pull request, and so how long an idle one lingers.
const pullWait = 5 * time.Second

// consume pulls as many messages as there are free slots, until ctx ends. The
// consumer is made again if it is gone.
func (s *Subscriber) consume(ctx context.Context, topic string, source Source, f *feed) {
	for ctx.Err() == nil {
		consumer, err := s.streams.Consumer(ctx, source.Stream, topic)
		if err == nil {
			err = s.pull(ctx, consumer, f)
		}
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("receiving failed; trying again", zap.String("subject", topic), zap.Error(err))
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

func (s *Subscriber) pull(ctx context.Context, consumer jetstream.Consumer, f *feed) error {
	for {
		n := f.slots.claim(ctx)
		if n == 0 {
			return nil
		}
		wait, cancel := context.WithTimeout(ctx, pullWait)
		got, err := s.fetch(ctx, f, n, func() (jetstream.MessageBatch, error) {
			return consumer.Fetch(n, jetstream.FetchContext(wait))
		})
		cancel()
		if err == nil && f.slots.shared && got > 0 { // there is something to do
			if n := f.slots.more(); n > 0 {
				_, err = s.fetch(ctx, f, n, func() (jetstream.MessageBatch, error) { return consumer.FetchNoWait(n) })
			}
		}
		if err != nil {
			return err
		}
	}
}

// fetch has up to n messages handled, for which it holds the slots, and returns
// how many there were.
func (s *Subscriber) fetch(ctx context.Context, f *feed, n int, messages func() (jetstream.MessageBatch, error)) (got int, err error) {
	batch, err := messages()
	if err != nil {
		f.slots.free(n)
		return 0, err
	}
	for m := range batch.Messages() {
		got++
		s.inFlight.Add(1)
		f.sending.Add(1)
		go s.handle(ctx, m, f)
	}
	f.slots.free(n - got)
	if err := batch.Error(); err != nil && ctx.Err() == nil && !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, context.DeadlineExceeded) {
		return got, err
	}
	return got, nil
}

// handle passes one message to the router and carries out its decision.
func (s *Subscriber) handle(ctx context.Context, m jetstream.Msg, f *feed) {
	defer s.inFlight.Done()

	d := &delivery{Subject: m.Subject(), Attempt: 1, Event: events.HeadersOf(m.Headers()), EventID: func() string { return events.EventID(m.Headers(), m.Data()) }, Trace: tracing.FromHeader(m.Headers()), slot: sync.OnceFunc(func() { f.slots.free(1) })}
	defer d.freeSlot()
	if meta, err := m.Metadata(); err == nil {
		d.Attempt, d.Taken, d.Stored = int(meta.NumDelivered), meta.Timestamp, firstStored(m.Headers(), meta.Timestamp)
		d.place, d.Behind = place{meta.Stream, meta.Sequence.Stream}, meta.NumPending
	}
	msg := message.NewMessage(watermill.NewUUID(), m.Data())
	// The handler's context outlives ctx: work under way is finished.
	msg.SetContext(context.WithValue(context.WithoutCancel(ctx), deliveryKey{}, d))
	if !f.send(ctx, msg) {
		s.settle(m.Nak(), d)
		return
	}
	progress := time.NewTicker(s.ackWait / 3)
	defer progress.Stop()
	for {
		select {
		case <-msg.Acked():
			s.settle(m.Ack(), d)
			return
		case <-msg.Nacked():
			s.settle(m.NakWithDelay(d.RetryIn), d)
			return
		case <-progress.C:
			s.settle(m.InProgress(), d)
		}
	}
}

// send passes a message on unless ctx ends first.
func (f *feed) send(ctx context.Context, msg *message.Message) bool {
	defer f.sending.Done()
	select {
	case f.out <- msg:
		return true
	case <-ctx.Done():
		return false
	}
}

// settle notes an acknowledgement that did not go out: the message comes
// again, and its handler finds it done.
func (s *Subscriber) settle(err error, d *delivery) {
	if err != nil {
		s.log.Warn("an acknowledgement could not be sent; the message comes again", zap.String("subject", d.Subject), zap.Error(err))
	}
}

// Close stops receiving and waits for the messages that are being handled.
func (s *Subscriber) Close() error {
	s.close()
	s.inFlight.Wait()
	return nil
}
