package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/latchkey/latchkey/events"
)

// ErrPartitions: the stream of events does not say how many streams there are in a way that
// this client understands. Another release may.
var ErrPartitions = errors.New("the number of streams is not understood")

// subscription is a running call of Subscribe.
type subscription struct {
	c       *Client
	s       Subscription
	filters []string
	calls   chan call
	// since is when the subscription began, by the clock of the server. That of a durable
	// began when its consumer was created on the first stream.
	since time.Time
	// running has the numbers of the streams that are received from.
	running sync.Map
}

// call is an event that waits to be handled.
type call struct {
	event events.LifecycleEvent
	done  chan<- error // what the handler returned
}

// run receives from all streams until ctx or the subscription ends. It calls handle itself, so
// that events of several streams are handled one at a time.
func (r *subscription) run(ctx context.Context, handle Handler) error {
	number, at, err := r.c.lifecycleStreams(ctx)
	if err != nil {
		return fmt.Errorf("subscribing to lifecycle events: %w", err)
	}
	r.since = at
	receiving, cancel := context.WithCancel(ctx)
	defer cancel()
	all, receiving := errgroup.WithContext(receiving)
	all.Go(func() error { return r.follow(receiving, all, number) })
	var failed error
	ended := make(chan struct{})
	go func() { failed = all.Wait(); close(ended) }()
	for {
		select {
		case <-ended:
			return failed
		case call := <-r.calls:
			if receiving.Err() != nil {
				call.done <- errEnded
				continue
			}
			err := handle(ctx, call.event)
			if err == nil || r.s.Durable != "" {
				call.done <- err
				continue
			}
			cancel()
			call.done <- errEnded
			<-ended
			return err
		}
	}
}

// handle has an event handled when it is its turn.
func (r *subscription) handle(ctx context.Context, e events.LifecycleEvent) error {
	done := make(chan error, 1)
	select {
	case r.calls <- call{e, done}:
		return <-done
	case <-ctx.Done():
		return errEnded
	}
}

// errEnded: the subscription ended before the event was handled.
var errEnded = errors.New("the subscription has ended")

// follow begins to receive from the streams, and from others as they are added.
func (r *subscription) follow(ctx context.Context, all *errgroup.Group, number int) error {
	for first := true; ; first = false {
		for n, name := range r.c.lifecycleNames(number) {
			r.begin(ctx, all, &part{subscription: r, n: n, stream: name, buffer: max(1, maxBuffer/number)}, first)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.c.after(askEvery):
		}
		now, _, err := r.c.lifecycleStreams(ctx)
		if err == nil {
			number = now
		} else if ctx.Err() == nil {
			r.c.onError(fmt.Errorf("looking for streams of lifecycle events: %w", err))
		}
	}
}

// begin receives from a stream, unless somebody does. It returns when the first stream has
// begun, because the others need to know when that was.
func (r *subscription) begin(ctx context.Context, all *errgroup.Group, p *part, must bool) {
	if _, runs := r.running.LoadOrStore(p.n, true); runs {
		return
	}
	begun := make(chan struct{})
	all.Go(func() error {
		defer r.running.Delete(p.n)
		return p.run(ctx, must, sync.OnceFunc(func() { close(begun) }))
	})
	if p.n == 0 {
		select {
		case <-begun:
		case <-ctx.Done():
		}
	}
}

// apiTimeout is the time limit for what is asked of JetStream, because there is no answer to
// what NATS refuses.
const apiTimeout = 5 * time.Second

// lifecycleStreams asks how many streams hold the events, and what time it is at the server.
func (c *Client) lifecycleStreams(ctx context.Context) (int, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	name, before := c.subjects.LifecycleStream(), c.nc.LastError()
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return 0, time.Time{}, c.at(name, err, before)
	}
	info := stream.CachedInfo()
	number, ok := events.PartitionsIn(info.Config.Metadata)
	if !ok {
		return 0, time.Time{}, fmt.Errorf("%w: %s of %s is %q, not 1 to %d", ErrPartitions, events.PartitionsKey, name, info.Config.Metadata[events.PartitionsKey], events.MaxPartitions)
	}
	return number, info.TimeStamp, nil
}

func (c *Client) lifecycleNames(number int) (names []string) {
	subjects := c.subjects
	subjects.Partitions = number
	for _, p := range subjects.LifecyclePartitions() {
		names = append(names, p.Stream)
	}
	return names
}

// at names the stream of an error and, if NATS has refused something there since before, what.
func (c *Client) at(stream string, err, before error) error {
	if c.refused(before, "."+stream+".", "."+stream+`"`) {
		return fmt.Errorf("%s: %w: %w", stream, err, c.nc.LastError())
	}
	return fmt.Errorf("%s: %w", stream, err)
}

// refused reports whether NATS has refused something since before whose subject contains one of
// the parts. It gives a refused request no answer.
func (c *Client) refused(before error, parts ...string) bool {
	last := c.nc.LastError()
	return last != before && errors.Is(last, nats.ErrPermissionViolation) && //nolint:errorlint // whether it is a new one
		slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(last.Error(), part) })
}

// part is what a subscription receives from one stream.
type part struct {
	*subscription
	n      int
	stream string
	buffer int // events that may wait in memory, where none is acknowledged
	// done is a sequence of the stream up to which every event was acknowledged at told, a
	// time of the server, or handled where none is acknowledged; told is zero before that is
	// known. Asked is when that was by the clock of this process.
	done  uint64
	told  time.Time
	asked time.Time
}

// maxBuffer is how many events wait in memory for all streams together.
const maxBuffer = 500

// errLeft: the stream is none of the installation's any more.
var errLeft = errors.New("a stream of earlier events is gone")

// run receives until ctx ends, or the whole subscription, or the stream is gone and no longer
// one of the installation's. Must is whether it ends if it can't begin.
func (p *part) run(ctx context.Context, must bool, begun func()) error {
	receive := p.receiveDurable
	if p.s.Durable == "" {
		receive = p.receiveOrdered
	}
	pauses := pauses()
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		before := p.c.nc.LastError()
		err := receive(ctx, func(created time.Time) {
			if must && p.n == 0 {
				p.since = created
			}
			must = false
			pauses.Reset()
			begun()
		})
		missing := p.n > 0 && errors.Is(err, jetstream.ErrStreamNotFound)
		switch {
		case ctx.Err() != nil:
			return struct{}{}, backoff.Permanent(ctx.Err())
		case must && !missing, errors.Is(err, ErrDurable), p.c.nc.IsClosed():
			return struct{}{}, backoff.Permanent(fmt.Errorf("subscribing to lifecycle events: %w", p.c.at(p.stream, err, before)))
		case !p.left(ctx, err):
			err = p.c.at(p.stream, err, before)
		case missing:
			err = backoff.Permanent(errLeft)
		default:
			err = errLeft
		}
		must = false
		return struct{}{}, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, _ time.Duration) {
		if !errors.Is(err, errLeft) && !errors.Is(err, errReplaced) {
			p.c.onError(fmt.Errorf("subscribing again: %w", err))
		}
	}))
	if errors.Is(err, errLeft) {
		return nil
	}
	return err
}

// left reports whether the error is that an operator has removed a stream which is none of the
// installation's any more.
func (p *part) left(ctx context.Context, err error) bool {
	lost := errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) ||
		errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, nats.ErrNoResponders)
	if p.n == 0 || !lost {
		return false
	}
	number, _, err := p.c.lifecycleStreams(ctx)
	return err == nil && p.n >= number
}

// start is where a consumer begins.
type start struct {
	policy jetstream.DeliverPolicy
	seq    uint64
	time   *time.Time
}

// start says where a new consumer begins: where a lost one was, if this subscription knows.
// If it can't know, an event comes rather twice than never. The error is that it can't know yet.
func (p *part) start(ctx context.Context) (start, error) {
	if p.told.IsZero() {
		switch {
		case !p.s.NewOnly:
			return start{policy: jetstream.DeliverAllPolicy}, nil
		case p.n == 0 && p.s.Durable != "":
			return start{policy: jetstream.DeliverNewPolicy}, nil
		default: // the stream may have been added since
			return start{policy: jetstream.DeliverByStartTimePolicy, time: &p.since}, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	before := p.c.nc.LastError()
	stream, err := p.c.js.Stream(ctx, p.stream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound), err != nil && p.c.refused(before, ".STREAM.INFO."):
		return start{policy: jetstream.DeliverAllPolicy}, nil
	case err != nil:
		return start{}, fmt.Errorf("looking for where to continue: %w", err)
	}
	// A stream that was created since counts from 1 again, and a restored one from before.
	if info := stream.CachedInfo(); info.Created.After(p.told) || info.State.LastSeq < p.done {
		return start{policy: jetstream.DeliverAllPolicy}, nil
	}
	return start{policy: jetstream.DeliverByStartSequencePolicy, seq: p.done + 1}, nil
}
