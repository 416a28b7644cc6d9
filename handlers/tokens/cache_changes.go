package tokens

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/latchkey/latchkey/events"
)

// A worker hears of the changes of those users only whom it keeps, and keeps those only
// whose changes it hears.

// hear returns the entry of a user whose changes are heard from now on. nil: they can't be,
// so nothing may be kept.
func (c *grantCache) hear(ctx context.Context, userID string) *kept {
	if c.users == nil {
		return nil
	}
	k, nc := c.entry(userID)
	if k == nil || k.heard.Load() {
		return k
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if nc.FlushWithContext(ctx) != nil {
		c.drop(userID, k)
		return nil
	}
	c.adding.Lock()
	defer c.adding.Unlock()
	if present, ok := c.users.Peek(userID); ok && present == k {
		c.deafUntil = time.Time{} // otherwise the entry may be gone since it was refused
	}
	k.heard.Store(true)
	return k
}

// entry returns the entry of a user, and adds it if there is none, and the connection on
// which it is heard. nil: nothing can be heard.
func (c *grantCache) entry(userID string) (*kept, *nats.Conn) {
	c.adding.Lock()
	defer c.adding.Unlock()
	if k, ok := c.users.Get(userID); ok {
		return k, c.nc
	}
	k := &kept{since: c.now()}
	if c.stopped || k.since.Before(c.deafUntil) {
		return nil, nil
	}
	if c.nc == nil {
		k.heard.Store(true)
	} else {
		if !c.deafUntil.IsZero() { // one tries, while the others wait
			c.deafUntil = k.since.Add(deafPause)
		}
		var err error
		if k.changes, err = c.nc.ChanSubscribe(c.subjects.Changed(userID), c.received); err != nil {
			return nil, nil // the connection ends
		}
	}
	c.users.Add(userID, k)
	return k, c.nc
}

// unhear ends the subscription of an entry that was dropped.
func (c *grantCache) unhear(_ string, k *kept) {
	if k.changes != nil {
		_ = k.changes.Unsubscribe() // fails on a closed connection only
	}
}

// deafPause is how long after a refusal the next subscription is tried.
const deafPause = time.Minute

// onError handles an asynchronous error of the connection. A subscription that NATS refuses
// hears nothing. The error for too many does not say which it was, and the limit holds for the
// worker's other subscriptions too: the cache takes up less of it from then on.
func (c *grantCache) onError(err error) {
	tooMany := errors.Is(err, nats.ErrMaxSubscriptionsExceeded)
	if !tooMany && !(errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `Subscription to "`+c.subjects.Changed(""))) {
		return
	}
	c.adding.Lock()
	defer c.adding.Unlock()
	now := c.now()
	if tooMany {
		// One user alone finds no room because of the others of the connection.
		if kept := c.users.Len(); kept > 1 && !now.Before(c.deafUntil) {
			c.room = kept
		}
		if c.room > 1 { // each refusal is one of those that were kept
			c.room--
			c.users.Resize(max(c.room*3/4, 1))
		}
	}
	c.deafUntil = now.Add(deafPause)
	c.clear()
}

// watchChanges keeps only what it hears the changes of, and drops what these and
// interruptions of the connection make out of date, until stop is called. Then it keeps nothing.
func (c *grantCache) watchChanges(nc *nats.Conn, subjects events.Subjects) (stop func()) {
	if c.users == nil {
		return func() {}
	}
	c.adding.Lock()
	c.nc, c.subjects = nc, subjects
	c.clear()
	c.adding.Unlock()
	next := nc.ErrorHandler()
	nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		c.onError(err)
		if next != nil {
			next(nc, sub, err)
		}
	})
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
				c.dropIdle()
			case <-ended:
				return
			}
		}
	}()
	return func() {
		nc.RemoveStatusListener(breaks)
		close(ended)
		c.adding.Lock()
		defer c.adding.Unlock()
		c.stopped = true
		c.clear()
	}
}

const (
	// catchUpEvery is how often changes are processed while there are no requests.
	catchUpEvery = 100 * time.Millisecond
	// maxReceived bounds the changes that wait until then.
	maxReceived = 1 << 16
)

// catchUp processes all changes that the connection has received so far. Every request
// does so first. So a caller that asks after it received an event gets what is new: the worker
// that published the event published the change before it, and NATS delivered that to this
// connection before the request.
func (c *grantCache) catchUp() {
	c.processing.Lock()
	defer c.processing.Unlock()
	for {
		// The client library drops what does not fit. Nobody else takes from the channel, so
		// it is still full if that has happened.
		if len(c.received) == maxReceived {
			c.clear()
		}
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
