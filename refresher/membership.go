package refresher

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/store"
)

// Times of a Membership. A worker whose beats fail starts no refresh shareHolds after the last
// good one began, and the others take its share shareFree after they heard of it: never
// both have it.
const (
	heartbeatInterval = 3 * time.Second
	shareHolds        = 3 * heartbeatInterval
	shareFree         = 4 * heartbeatInterval
	dropAfter         = 10 * shareFree // others drop the beat of a worker that is gone for good
	leaveLimit        = 3 * time.Second
)

// MembershipStore keeps the beats of all workers.
type MembershipStore interface {
	RecordHeartbeat(ctx context.Context, b store.Heartbeat) ([]store.Heartbeat, error)
	DeleteHeartbeat(ctx context.Context, b store.Heartbeat) error
}

// MembershipOptions of NewMembership; all are required.
type MembershipOptions struct {
	Store MembershipStore
	// Run identifies this run of the worker.
	Run, WorkerID string
	Now           func() time.Time
	Log           *zap.Logger
	Metrics       prometheus.Registerer
}

// Membership counts the workers of the installation, among which its limits are divided. They
// record heartbeats in the database: a worker that can't reach it can't take a lease either,
// and so refreshes nothing. It is safe for concurrent use.
type Membership struct {
	o MembershipOptions

	mu       sync.Mutex
	n        int64
	lastBeat time.Time // when the last beat that was recorded began; zero: none was
	count    int
	others   map[string]lastHeartbeat // by their runs
	failed   bool
}

// lastHeartbeat is the last beat of another worker, and since when it is the last.
type lastHeartbeat struct {
	beat  store.Heartbeat
	since time.Time
}

// NewMembership returns a Membership that knows of nobody before the first Heartbeat.
func NewMembership(o MembershipOptions) (*Membership, error) {
	if err := options.Require("the membership of a worker", o, "Store", "Run", "WorkerID", "Now", "Log", "Metrics"); err != nil {
		return nil, err
	}
	c := &Membership{o: o, others: map[string]lastHeartbeat{}}
	o.Metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "latchkey", Name: "limits_workers", Help: "Workers among which this one divides the limits; 0 while it can't count them and starts no refresh.",
	}, func() float64 { return float64(c.Workers()) }))
	return c, nil
}

// Workers returns how many workers share the limits, this one included. 0: this worker
// can't tell, or others may count it as gone, so it must not use its share.
func (c *Membership) Workers() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lastBeat.IsZero() || elapsed(c.lastBeat, c.o.Now()) >= shareHolds {
		return 0
	}
	return c.count
}

// elapsed is the time between two moments by the clock that says more: the monotonic one
// stands still while a machine is suspended.
func elapsed(since, now time.Time) time.Duration {
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)))
}

// Heartbeat records that this worker is there, and counts those that are. It logs when that
// begins to fail.
func (c *Membership) Heartbeat(ctx context.Context) error {
	err := c.heartbeat(ctx)
	c.logChange(err)
	return err
}

func (c *Membership) heartbeat(ctx context.Context) error {
	c.mu.Lock()
	c.n++
	own := store.Heartbeat{Run: c.o.Run, Worker: c.o.WorkerID, N: c.n}
	c.mu.Unlock()
	began := c.o.Now()
	all, err := c.o.Store.RecordHeartbeat(ctx, own)
	if err != nil {
		return err
	}
	for _, b := range c.countMembers(began, all) {
		if err := c.o.Store.DeleteHeartbeat(ctx, b); err != nil {
			c.o.Log.Debug("the heartbeat of a worker that is gone can't be deleted now", zap.Error(err))
		}
	}
	return nil
}

// countMembers counts the heartbeats that were read with one that began at a time, and returns
// those of workers that are gone for good. An answer may come late, so the time before it
// decides which workers were silent. After a time in which this worker used no share it does
// not take the others for gone: the database may have been away from all of them.
func (c *Membership) countMembers(began time.Time, all []store.Heartbeat) (drop []store.Heartbeat) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.o.Now()
	before, back := c.others, elapsed(c.lastBeat, began) >= shareHolds
	c.others, c.lastBeat, c.count = map[string]lastHeartbeat{}, began, 1
	for _, b := range all {
		if b.Run == c.o.Run {
			continue
		}
		h, known := before[b.Run]
		if !known || h.beat.N != b.N || back {
			h = lastHeartbeat{b, now}
		}
		c.others[b.Run] = h
		switch silent := began.Sub(h.since); {
		case silent < shareFree:
			c.count++
		case silent > dropAfter:
			drop = append(drop, b)
		}
	}
	return drop
}

// logChange logs when beats begin to fail, and when they are well again.
func (c *Membership) logChange(err error) {
	c.mu.Lock()
	changed := c.failed != (err != nil)
	c.failed = err != nil
	c.mu.Unlock()
	switch {
	case changed && err != nil:
		c.o.Log.Warn("this worker can't count the others: unless it soon can, it starts no refresh until it can", zap.Error(err))
	case changed:
		c.o.Log.Info("this worker counts the others again", zap.Int("workers", c.Workers()))
	}
}

// Run beats until ctx ends, and then leaves its share to the others.
func (c *Membership) Run(ctx context.Context) {
	ticker := time.NewTicker(heartbeatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			beat, cancel := context.WithTimeout(ctx, shareHolds)
			if err := c.heartbeat(beat); ctx.Err() == nil { // else the end of ctx may be why it failed
				c.logChange(err)
			}
			cancel()
			continue
		case <-ctx.Done():
		}
		break
	}
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
	defer cancel()
	c.Leave(leave)
}

// Leave leaves this worker's share to the others; it starts no refresh from now on.
func (c *Membership) Leave(ctx context.Context) {
	c.mu.Lock()
	own := store.Heartbeat{Run: c.o.Run, N: c.n}
	c.lastBeat = time.Time{}
	c.mu.Unlock()
	if err := c.o.Store.DeleteHeartbeat(ctx, own); err != nil {
		c.o.Log.Debug("this worker's heartbeat can't be deleted; the others notice later that it has left", zap.Error(err))
	}
}
