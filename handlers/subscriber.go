package handlers

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store/parts"
	"github.com/latchkey/latchkey/store/streams"
)

// Subscriber is a Watermill subscriber over JetStream pull consumers. It bounds how many
// messages are handled at once, extends the acknowledgement wait of one that takes long,
// and lets a handler choose when a message comes back. (watermill-nats can do neither of
// the last two, and closes the connection that it is given.)
type Subscriber struct {
	streams  *streams.Topology
	ackWait  time.Duration
	sources  map[string]Source
	slots    map[string]slots // by subject
	log      *zap.Logger
	closing  context.Context
	close    context.CancelFunc
	inFlight sync.WaitGroup

	mu sync.Mutex
	// failures counts, by subject, how often receiving has failed in a row.
	failures map[string]int
}

// Source says how the messages of one subject are consumed.
type Source struct {
	Stream string
	// Concurrency is how many messages are handled at once.
	Concurrency int
	// Shared, if set, names the bound that several sources share. Together they handle
	// what one may, and one more for each further source, since each takes a slot while it
	// waits for a message.
	Shared string
}

// SubscriberOptions are the parts of a Subscriber.
type SubscriberOptions struct {
	Streams *streams.Topology
	// AckWait is that of the consumers.
	AckWait time.Duration
	Sources map[string]Source // by subject
	Log     *zap.Logger
}

// NewSubscriber returns a subscriber that consumes once Subscribe is called.
func NewSubscriber(o SubscriberOptions) (*Subscriber, error) {
	if err := options.Require("a subscriber", o, "Streams", "AckWait", "Sources", "Log"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Subscriber{streams: o.Streams, ackWait: o.AckWait, sources: o.Sources, slots: slotsOf(o.Sources), log: o.Log, closing: ctx, close: cancel, failures: map[string]int{}}, nil
}

// delivery accompanies a message through its handler.
type delivery struct {
	// Subject and Attempt (from 1) of the message.
	Subject string
	Attempt int
	// StoredAt is when NATS stored it, FirstStoredAt when NATS first did if it was replayed.
	StoredAt, FirstStoredAt time.Time
	// Replayed: it says that it was replayed.
	Replayed bool
	// Call: it is due for a call to Mesh (events.HeaderCall).
	Call bool
	// Behind is how many messages waited behind it.
	Behind uint64
	// Event has the CloudEvents attributes in its headers; nil: there are none.
	Event events.Headers
	// EventID is the id under which its publisher knows it.
	EventID func() string
	// User is the user of a message that was decoded.
	User string
	// Undecodable: a sealed message can't be decoded, and names Users, or no key opens it.
	Undecodable bool
	Users       []string
	// named are the users that a parked message names, letter the id of its dead letter.
	named  []string
	letter string
	// place is zero if it is not known.
	place place
	// Trace is the trace in which the message was sent.
	Trace tracing.TraceContext
	// RetryIn is when a message that is not acknowledged comes back.
	RetryIn time.Duration
	// freeSlot frees the slot of the message, which may still be at work.
	freeSlot func()
}

type deliveryKey struct{}

// deliveryOf returns the delivery of a message that came from a Subscriber.
func deliveryOf(msg *message.Message) *delivery {
	if d, ok := msg.Context().Value(deliveryKey{}).(*delivery); ok {
		return d
	}
	return &delivery{Attempt: 1, freeSlot: func() {}}
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
	s.inFlight.Go(func() {
		defer cancel()
		defer stop()
		s.consume(ctx, topic, source, f)
		f.sending.Wait()
		close(f.out)
	})
	return f.out, nil
}

// feed is where the messages of one subscription go.
type feed struct {
	out chan *message.Message
	// sending counts the goroutines that may still send to out.
	sending sync.WaitGroup
	slots   slots
}

// pullWait bounds one pull request, so that an idle one ends.
const pullWait = 5 * time.Second

// consume pulls as many messages as there are free slots, until ctx ends. It creates the
// consumer again if that is gone.
func (s *Subscriber) consume(ctx context.Context, topic string, source Source, f *feed) {
	for ctx.Err() == nil {
		consumer, err := s.streams.Consumer(ctx, source.Stream, topic)
		if err == nil {
			err = s.pull(ctx, topic, consumer, f)
		}
		if ctx.Err() != nil {
			return
		}
		s.count(topic, err)
		s.log.Warn("receiving failed; trying again", zap.String("subject", topic), zap.Error(err))
		_ = pause.For(ctx, time.Second) // the loop sees that ctx has ended
	}
}

// failuresTold is how often receiving has to fail in a row until it counts as a problem: a
// consumer that was deleted is back at the first try.
const failuresTold = 3

func (s *Subscriber) count(topic string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.failures, topic)
	} else {
		s.failures[topic]++
	}
}

// Problem names the subjects from which nothing can be received at present; empty: there is
// none.
func (s *Subscriber) Problem() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failing []string
	for topic, times := range s.failures {
		if times >= failuresTold {
			failing = append(failing, topic)
		}
	}
	if len(failing) == 0 {
		return ""
	}
	slices.Sort(failing)
	return "receiving fails again and again: " + strings.Join(failing, ", ")
}

func (s *Subscriber) pull(ctx context.Context, topic string, consumer jetstream.Consumer, f *feed) error {
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
		if err == nil && f.slots.shared && got > 0 {
			if n := f.slots.claimFree(); n > 0 {
				_, err = s.fetch(ctx, f, n, func() (jetstream.MessageBatch, error) { return consumer.FetchNoWait(n) })
			}
		}
		if err != nil {
			return err
		}
		s.count(topic, nil)
	}
}

// fetch has up to n messages handled, whose slots are claimed, and returns how many came.
func (s *Subscriber) fetch(ctx context.Context, f *feed, n int, messages func() (jetstream.MessageBatch, error)) (got int, err error) {
	batch, err := messages()
	if err != nil {
		f.slots.free(n)
		return 0, err
	}
	for m := range batch.Messages() {
		got++
		f.sending.Add(1)
		s.inFlight.Go(func() { s.handle(ctx, m, f) })
	}
	f.slots.free(n - got)
	if err := batch.Error(); err != nil && ctx.Err() == nil && !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, context.DeadlineExceeded) {
		return got, err
	}
	return got, nil
}

// handle passes one message to the router and carries out its decision.
func (s *Subscriber) handle(ctx context.Context, m jetstream.Msg, f *feed) {
	d := &delivery{
		Subject: m.Subject(), Attempt: 1, Event: events.HeadersOf(m.Headers()), EventID: func() string { return events.EventID(m.Headers(), m.Data()) },
		Trace: tracing.FromHeader(m.Headers()), freeSlot: sync.OnceFunc(func() { f.slots.free(1) }),
		Replayed: m.Headers().Get(parts.HeaderStored) != "", Call: m.Headers().Get(events.HeaderCall) != "",
	}
	defer d.freeSlot()
	if meta, err := m.Metadata(); err == nil {
		d.Attempt, d.StoredAt, d.FirstStoredAt = int(meta.NumDelivered), meta.Timestamp, firstStored(m.Headers(), meta.Timestamp)
		d.place, d.Behind = place{meta.Stream, meta.Sequence.Stream}, meta.NumPending
	}
	msg := message.NewMessage("", m.Data()) // its log has no ids
	// The handler's context outlives ctx: work under way is finished.
	msg.SetContext(context.WithValue(context.WithoutCancel(ctx), deliveryKey{}, d))
	select {
	case f.out <- msg:
		f.sending.Done()
	case <-ctx.Done():
		f.sending.Done()
		s.logUnsent(m.Nak(), d)
		return
	}
	progress := time.NewTicker(s.ackWait / 3)
	defer progress.Stop()
	for {
		select {
		case <-msg.Acked():
			s.logUnsent(m.Ack(), d)
			return
		case <-msg.Nacked():
			s.logUnsent(m.NakWithDelay(d.RetryIn), d)
			return
		case <-progress.C:
			s.logUnsent(m.InProgress(), d)
		}
	}
}

// logUnsent logs an acknowledgement that was not sent: the message comes again, and its
// handler finds it done.
func (s *Subscriber) logUnsent(err error, d *delivery) {
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
