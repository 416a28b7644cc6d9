package tokens

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/nats-io/nats.go"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// grantCache keeps the sealed grants of users whose tokens were requested lately. While it
// keeps a user it hears of the user's changes, which drop what is kept; should one be
// missed, what was read still serves no longer than the maximum age.
//
// Its grants are shared and must not be changed.
type grantCache struct {
	load func(ctx context.Context, userID string) ([]*store.Grant, error)
	age  time.Duration
	now  func() time.Time

	users *lru.Cache[string, *kept] // nil: nothing is kept

	// received are changes that were not processed yet.
	received   chan *nats.Msg
	processing sync.Mutex

	// adding is held while an entry is added, and guards what decides on that.
	adding   sync.Mutex
	nc       *nats.Conn // nil: changes can't be heard yet, and the age alone limits what is kept
	subjects events.Subjects
	stopped  bool
	// deafUntil is until when nobody subscribes, since NATS refused it; zero: it did not.
	deafUntil time.Time
	// room is for how many users NATS had room when it refused one more; zero: it never did.
	room int
}

// kept is what a cache keeps of a user: as long as it does so, it has heard of no change
// since. Whoever drops it ends its subscription; what is read for it later is kept nowhere.
type kept struct {
	since   time.Time
	changes *nats.Subscription
	heard   atomic.Bool             // the server has the subscription
	last    atomic.Pointer[reading] // nil: nothing was read yet
}

// reading is what was read about a user, and when that began (or ended, if entry is nil).
type reading struct {
	grants []*store.Grant
	at     time.Time
	// entry is that of the user since before the reading; nil: changes were not heard.
	entry *kept
}

// newGrantCache returns a cache for size users. With an age or a size of 0 it keeps
// nothing.
func newGrantCache(size int, age time.Duration, now func() time.Time, load func(context.Context, string) ([]*store.Grant, error)) *grantCache {
	c := &grantCache{load: load, age: age, now: now, received: make(chan *nats.Msg, maxReceived)}
	if size > 0 && age > 0 {
		c.users, _ = lru.NewWithEvict(size, c.unhear) // fails for a size below 1 only
	}
	return c
}

// byUser reads a user's grants, unless a reading is at hand that is not too old.
func (c *grantCache) byUser(ctx context.Context, userID string) (*reading, error) {
	if r, ok := c.cached(userID); ok {
		return r, nil
	}
	return c.reread(ctx, userID)
}

// cached returns what byUser returns if that need not read.
func (c *grantCache) cached(userID string) (*reading, bool) {
	if c.users == nil {
		return nil, false
	}
	c.catchUp()
	k, ok := c.users.Get(userID)
	if !ok {
		return nil, false
	}
	last := k.last.Load()
	return last, last != nil && c.younger(last, c.age)
}

// brief is for how long a reading serves of whose user nothing is heard.
const brief = 100 * time.Millisecond

// holds reports whether a reading is as good as a new one still: no change was heard of
// since, and it is not too old.
func (c *grantCache) holds(userID string, r *reading) bool {
	if r.entry == nil {
		return c.younger(r, brief)
	}
	c.catchUp()
	k, ok := c.users.Peek(userID)
	return ok && k == r.entry && c.younger(r, max(c.age, brief))
}

// younger reports whether a reading is younger than an age, by the wall clock too: the
// monotonic one may stop with the machine.
func (c *grantCache) younger(r *reading, age time.Duration) bool {
	now := c.now()
	return now.Sub(r.at) < age && now.Round(0).Sub(r.at.Round(0)) < age
}

// reread reads a user's grants, and keeps them if it hears of all changes from before the
// reading on. What changes meanwhile drops the entry that they would be kept in.
func (c *grantCache) reread(ctx context.Context, userID string) (*reading, error) {
	k := c.hear(ctx, userID)
	at := c.now()
	grants, err := c.load(ctx, userID)
	r := &reading{grants, at, k}
	switch {
	case k == nil:
		r.at = c.now() // reading again would bring nothing newer than the end of the last reading
	case err == nil && len(grants) > 0:
		k.last.Store(r)
	case err == nil || k.last.Load() == nil:
		c.drop(userID, k)
	}
	return r, err
}

// invalidate drops a user's grants.
func (c *grantCache) invalidate(userID string) {
	if c.users != nil {
		c.users.Remove(userID)
	}
}

// markUsed marks the current version of a cached grant as in use, of which nobody hears.
func (c *grantCache) markUsed(g *store.Grant) {
	if c.users == nil {
		return
	}
	k, ok := c.users.Peek(g.UserID)
	if !ok {
		return
	}
	last := k.last.Load()
	if last == nil {
		return
	}
	i := slices.IndexFunc(last.grants, func(kept *store.Grant) bool { return kept.ID == g.ID && kept.Version == g.Version })
	if i < 0 {
		return
	}
	used := &reading{slices.Clone(last.grants), last.at, k}
	used.grants[i] = g.Clone()
	used.grants[i].UsedIn = g.Version
	k.last.CompareAndSwap(last, used)
}

// clear drops everything, since changes may have been missed.
func (c *grantCache) clear() {
	if c.users != nil {
		c.users.Purge()
	}
}

// drop drops an entry, unless the user has another by now.
func (c *grantCache) drop(userID string, k *kept) {
	c.adding.Lock()
	defer c.adding.Unlock()
	if present, ok := c.users.Peek(userID); ok && present == k {
		c.users.Remove(userID)
	}
}

// dropIdle drops users whom nobody has asked for lately, so that their changes are not
// heard for nothing.
func (c *grantCache) dropIdle() {
	for {
		userID, k, ok := c.users.GetOldest()
		if !ok {
			return
		}
		read := k.since
		if last := k.last.Load(); last != nil {
			read = last.at
		}
		if c.now().Sub(read) < idleAges*c.age {
			return
		}
		c.drop(userID, k)
	}
}

// idleAges is after how many maximum ages a user who is not read again is dropped.
const idleAges = 10
