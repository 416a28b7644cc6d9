package client

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/sealing"
)

// SealConnects has connects sealed, so that only workers can read them. The client gets
// the workers' keys by requests on events.Subjects.TokenKeys, which it needs the permission
// to publish. It holds keys for an hour, and for a day longer while none can be had.
func SealConnects() Option { return func(c *Client) { c.sealConnects = true } }

// SealReplies has token replies sealed to a key that New makes and that stays in memory,
// so that nobody else can read them. A reply that is not sealed is an error.
func SealReplies() Option { return func(c *Client) { c.sealReplies = true } }

const (
	keyLife    = time.Hour      // a new key comes about once a month
	keyOverlap = 24 * time.Hour // connect.key_overlap: workers open what is sealed to a replaced key for longer
	keyPause   = time.Minute    // between requests while there is a key that can still be used
)

// workerKeys is the key that connects are sealed to.
type workerKeys struct {
	mu      sync.Mutex
	key     sealing.PublicKey
	fetched time.Time // zero: there is no key
	next    time.Time // when to ask again
}

// atHand returns the key, if it can be used, and whether it is time to ask for another.
func (k *workerKeys) atHand(now time.Time) (key sealing.PublicKey, usable, ask bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	usable = !k.fetched.IsZero() && now.Before(k.fetched.Add(keyLife+keyOverlap))
	ask = !usable || !now.Before(k.next)
	if usable && ask {
		k.next = now.Add(keyPause) // one asks, and others use the key meanwhile
	}
	return k.key, usable, ask
}

// seal seals the body of a connect. It retries while no worker answers and there is no key.
func (c *Client) seal(ctx context.Context, body []byte) ([]byte, error) {
	if _, err := (events.ConnectedMessage{}).DecodeOpened(body); err != nil { // as a worker reads what it opened
		return nil, err
	}
	key, usable, ask := c.keys.atHand(c.now())
	if ask {
		transient := transientOnRequest
		if usable {
			transient = func(error) bool { return false }
		}
		fresh, err := c.fetchKey(ctx, transient)
		switch {
		case err == nil:
			key = fresh
		case !usable:
			return nil, fmt.Errorf("asking for the workers' keys: %w", err)
		default:
			c.onError(fmt.Errorf("asking for the workers' keys: %w", err))
		}
	}
	return key.Seal(body)
}

func (c *Client) fetchKey(ctx context.Context, transient func(error) bool) (sealing.PublicKey, error) {
	var key sealing.PublicKey
	err := c.retry(ctx, publishAttempt, transient, func(ctx context.Context) error {
		answer, err := c.request(ctx, c.subjects.TokenKeys(), nil)
		if err == nil {
			key, err = sealing.ParseKeys(answer)
		}
		return err
	})
	if err != nil {
		return sealing.PublicKey{}, err
	}
	now := c.now()
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	c.keys.key, c.keys.fetched, c.keys.next = key, now, now.Add(keyLife)
	return key, nil
}
