package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/cmd/latchkey/bench"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/store/streams"
)

// stallTimeout is how long nothing may happen before a measurement is given up.
const stallTimeout = 2 * time.Minute

type eventCounter struct {
	sub  *nats.Subscription
	n    atomic.Int64
	last atomic.Int64 // when the last came, Unix nanoseconds
}

func (s *site) countEvents(kind string) (h *eventCounter, err error) {
	h = &eventCounter{}
	h.sub, err = s.nc.Subscribe(s.subjects.LifecycleAll(kind), func(*nats.Msg) {
		h.last.Store(time.Now().UnixNano())
		h.n.Add(1)
	})
	if err == nil {
		err = h.sub.SetPendingLimits(-1, -1)
	}
	if err == nil {
		err = s.nc.Flush()
	}
	if err != nil {
		return nil, fmt.Errorf("listening to events: %w", err)
	}
	return h, nil
}

func (h *eventCounter) await(ctx context.Context, n int) (time.Time, error) {
	defer func() { _ = h.sub.Unsubscribe() }() // fails on a closed connection only
	err := awaitCount(ctx, n, often, "events came", func() (int, error) { return int(h.n.Load()), nil })
	return time.Unix(0, h.last.Load()), err
}

// How often awaitCount looks: at something that costs nothing, and at something that costs what is measured.
const (
	often  = 5 * time.Millisecond
	seldom = 200 * time.Millisecond
)

func awaitCount(ctx context.Context, n int, every time.Duration, what string, count func() (int, error)) error {
	for before, since := 0, time.Now(); ; {
		got, err := count()
		if err != nil || got >= n {
			return err
		}
		if got > before {
			before, since = got, time.Now()
		}
		if time.Since(since) > stallTimeout {
			return fmt.Errorf("%d of %d %s, and no more for %s", got, n, what, stallTimeout)
		}
		if err := pause.For(ctx, every); err != nil {
			return err
		}
	}
}

// queue is a subject of a stream that workers read.
type queue struct{ stream, subject string }

// backlog lets the workers handle n messages of some queues that all wait before the first is
// handled, and returns how many a second they handled, until the last event of a kind. put
// publishes the messages; ready is called when all wait.
func (s *site) backlog(ctx context.Context, queues []queue, kind string, n int, put, ready func() error) (rate float64, err error) {
	if err := s.pause(ctx, queues, time.Now().Add(24*time.Hour)); err != nil {
		return 0, err
	}
	h, err := s.countEvents(kind)
	if err != nil {
		return 0, err
	}
	if err := put(); err != nil {
		return 0, err
	}
	if err := s.awaitPending(ctx, queues, n); err != nil {
		return 0, err
	}
	if err := ready(); err != nil {
		return 0, err
	}
	// At the end of a pause NATS answers the pull requests of workers; when a pause is ended
	// early it waits for new ones.
	begun := time.Now().Add(300 * time.Millisecond)
	if err := s.pause(ctx, queues, begun); err != nil {
		return 0, err
	}
	last, err := h.await(ctx, n)
	return float64(n) / max(last.Sub(begun), time.Millisecond).Seconds(), err
}

func (s *site) pause(ctx context.Context, queues []queue, until time.Time) error {
	for _, q := range queues {
		if _, err := s.js.PauseConsumer(ctx, q.stream, streams.Durable(q.subject), until); err != nil {
			return fmt.Errorf("pausing the consumer of %s: %w", q.subject, err)
		}
	}
	return nil
}

func (s *site) awaitPending(ctx context.Context, queues []queue, n int) error {
	return awaitCount(ctx, n, often, "messages are pending", func() (pending int, err error) {
		for _, q := range queues {
			consumer, err := s.js.Consumer(ctx, q.stream, streams.Durable(q.subject))
			if err != nil {
				return 0, fmt.Errorf("reading the backlog: %w", err)
			}
			pending += int(consumer.CachedInfo().NumPending)
		}
		return pending, nil
	})
}

func nothing() error { return nil }

func (s *site) refresh(ctx context.Context, n int) (rate float64, err error) {
	return s.refreshFrom(ctx, n, nothing, nothing)
}

// refreshFrom calls begin when all is ready but the schedules, and ready when these have come due.
func (s *site) refreshFrom(ctx context.Context, n int, begin, ready func() error) (rate float64, err error) {
	grants, err := s.grants(ctx, n, func(int) time.Time { return time.Now() })
	if err != nil {
		return 0, err
	}
	if err := s.insert(ctx, s.cfg.MongoDB.Database, grants); err != nil {
		return 0, err
	}
	var queues []queue
	for _, p := range s.subjects.RefreshPartitions() {
		queues = append(queues, queue{p.Stream, p.Due})
	}
	return s.backlog(ctx, queues, events.TokenRefreshed, n, func() error {
		if err := begin(); err != nil {
			return err
		}
		return s.schedule(ctx, grants)
	}, ready)
}

func (s *site) connect(ctx context.Context, n int) (rate float64, err error) {
	return s.backlog(ctx, []queue{{s.subjects.IntegrationStream(), s.subjects.Connected()}}, events.TokenStored, n, func() error {
		for range n {
			if _, err := s.js.PublishAsync(s.subjects.Connected(), bench.ConnectOf(s.user()), jetstream.WithStallWait(time.Minute)); err != nil {
				return fmt.Errorf("publishing connects: %w", err)
			}
		}
		return nil
	}, nothing)
}
