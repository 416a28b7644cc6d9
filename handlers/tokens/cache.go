package tokens

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/nats-io/nats.go"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// grantCache keeps the sealed grants of users whose tokens were requested lately.
// Lifecycle events remove what has changed; should an event be lost, an entry still
// expires at the maximum age.
//
// Its grants are shared and must not be changed.
type grantCache struct {
	load func(ctx context.Context, userID string) ([]*store.Grant, error)
	age  time.Duration
	now  func() time.Time

	users *lru.Cache[string, cacheEntry]
	seed  maphash.Seed
	// changes counts the changes of users, who are spread over the counters by hash:
	// what was read before a change must not be kept after it.
	changes [256]atomic.Uint64

	// received are lifecycle events that were not processed yet.
	received   chan *nats.Msg
	processing sync.Mutex
}

type cacheEntry struct {
	grants []*store.Grant
	read   time.Time
}

// newGrantCache returns a cache for size users. With an age or a size of 0 it keeps
// nothing.
func newGrantCache(size int, age time.Duration, now func() time.Time, load func(context.Context, string) ([]*store.Grant, error)) *grantCache {
	c := &grantCache{load: load, age: age, now: now, seed: maphash.MakeSeed(), received: make(chan *nats.Msg, maxReceived)}
	if size > 0 && age > 0 {
		c.users, _ = lru.New[string, cacheEntry](size) // fails for a size below 1 only
	}
	return c
}

// byUser returns a user's grants, at most as old as the maximum age.
func (c *grantCache) byUser(ctx context.Context, userID string) ([]*store.Grant, error) {
	if grants, ok := c.cached(userID); ok {
		return grants, nil
	}
	return c.reread(ctx, userID)
}

// cached returns a user's grants if byUser need not read them.
func (c *grantCache) cached(userID string) ([]*store.Grant, bool) {
	if c.users == nil {
		return nil, false
	}
	c.catchUp()
	entry, ok := c.users.Get(userID)
	if !ok || c.now().Sub(entry.read) >= c.age {
		return nil, false
	}
	return entry.grants, true
}

// reread reads a user's grants, and keeps them unless they change meanwhile.
func (c *grantCache) reread(ctx context.Context, userID string) ([]*store.Grant, error) {
	if c.users == nil {
		return c.load(ctx, userID)
	}
	change := c.changeCounter(userID)
	before, read := change.Load(), c.now()
	grants, err := c.load(ctx, userID)
	if err != nil {
		return nil, err
	}
	if len(grants) == 0 {
		c.users.Remove(userID)
		return nil, nil
	}
	c.users.Add(userID, cacheEntry{grants, read})
	if change.Load() != before {
		c.users.Remove(userID)
	}
	return grants, nil
}

// invalidate drops a user's grants.
func (c *grantCache) invalidate(userID string) {
	if c.users == nil {
		return
	}
	c.changeCounter(userID).Add(1)
	c.users.Remove(userID)
}

// markUsed marks the current version of a cached grant as in use, of which no event comes.
func (c *grantCache) markUsed(g *store.Grant) {
	if c.users == nil {
		return
	}
	change := c.changeCounter(g.UserID)
	before := change.Load()
	entry, ok := c.users.Peek(g.UserID)
	i := slices.IndexFunc(entry.grants, func(kept *store.Grant) bool { return kept.ID == g.ID && kept.Version == g.Version })
	if !ok || i < 0 {
		return
	}
	next := g.Clone()
	next.UsedIn = next.Version
	entry.grants = slices.Clone(entry.grants)
	entry.grants[i] = next
	c.users.Add(g.UserID, entry)
	if change.Load() != before {
		c.users.Remove(g.UserID)
	}
}

// clear drops everything, since changes may have been missed.
func (c *grantCache) clear() {
	if c.users == nil {
		return
	}
	for i := range c.changes {
		c.changes[i].Add(1)
	}
	c.users.Purge()
}

func (c *grantCache) changeCounter(userID string) *atomic.Uint64 {
	return &c.changes[maphash.String(c.seed, userID)%uint64(len(c.changes))]
}

// watchChanges drops what lifecycle events and interruptions of the connection make out of
// date, until stop is called.
func (c *grantCache) watchChanges(nc *nats.Conn, subjects events.Subjects) (stop func(), err error) {
	if c.users == nil {
		return func() {}, nil
	}
	var subs []*nats.Subscription
	unsubscribe := func() {
		for _, sub := range subs {
			_ = sub.Unsubscribe() // fails on a closed connection only
		}
	}
	for _, kind := range events.LifecycleKinds {
		sub, err := nc.ChanSubscribe(subjects.LifecycleAll(kind), c.received)
		if err != nil {
			unsubscribe()
			return nil, fmt.Errorf("listening for changes of grants: %w", err)
		}
		subs = append(subs, sub)
	}
	breaks := nc.StatusChanged(nats.RECONNECTING, nats.CONNECTED)
	ended := make(chan struct{})
	go func() {
		ticker := time.NewTicker(catchUpEvery)
		defer ticker.Stop()
		for {
			select {
			case _, ok := <-breaks:
				if !ok {
					return
				}
				c.clear()
			case <-ticker.C:
				c.catchUp()
			case <-ended:
				return
			}
		}
	}()
	return func() { unsubscribe(); nc.RemoveStatusListener(breaks); close(ended) }, nil
}

const (
	// catchUpEvery is how often events are processed while there are no requests.
	catchUpEvery = 100 * time.Millisecond
	// maxReceived bounds the events that wait until then.
	maxReceived = 1 << 16
)

// catchUp processes all events that the connection has received so far. Every request
// does so first. So a caller that asks after it received an event gets what is new: NATS
// delivered the event to this connection before the request.
func (c *grantCache) catchUp() {
	c.processing.Lock()
	defer c.processing.Unlock()
	if len(c.received) == maxReceived {
		c.clear() // there may have been more
	}
	for {
		select {
		case m := <-c.received:
			user, err := events.DecodeUserID(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
			if err == nil {
				c.invalidate(user)
			}
		default:
			return
		}
	}
}
