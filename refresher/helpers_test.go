package refresher_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

const (
	hour = time.Hour
	day  = 24 * time.Hour
)

// t0 is the start of time in tests that need no real one.
var t0 = time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)

// clock is a time that only the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
	// live has the clock go by itself, off by as much from the machine's.
	live bool
	off  time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live {
		return time.Now().Add(c.off)
	}
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func lasting(since time.Time, d time.Duration) *store.Life {
	return &store.Life{Since: since, ExpiresAt: new(since.Add(d))}
}

func endless(since time.Time) *store.Life { return &store.Life{Since: since} }

// newGrant is a grant of one account, connected at t0 with an hour of access
// and ninety days of refresh.
func newGrant(change ...func(*store.Grant)) *store.Grant {
	g := &store.Grant{
		ID: "grant", UserID: "user", BrokerType: "coinbase", BrokerName: "Coinbase",
		Accounts: []store.Account{{ID: "one", Name: "One", ExpiresAt: new(t0.Add(hour))}},
		State:    store.Active, ConnectedAt: t0, Version: 1, Rev: 1, Epoch: 1,
		Access: lasting(t0, hour), Refresh: lasting(t0, 90*day),
	}
	for _, f := range change {
		f(g)
	}
	return g
}

func policy() refresher.Policy {
	d := config.Default().Refresh
	return refresher.Policy{AccessToken: d.AccessToken, RefreshToken: d.RefreshToken}
}

// settler settles by a clock, with chance as every random number.
func settler(c *clock, chance float64) refresher.Settler {
	d := config.Default()
	ids := 0
	return refresher.Settler{
		Announcer: refresher.Announcer{Now: c.Now, NewID: func() string { ids++; return fmt.Sprintf("event-%d", ids) }},
		Policy:    policy(),
		Backoff:   d.Refresh.Backoff, RateLimited: d.Refresh.RateLimited, Credentials: d.Refresh.Credentials,
		Grace: d.Refresh.Grace, Retention: d.Retention.Expired,
		Rand: func() float64 { return chance },
	}
}

// announced decodes the events in a grant's outbox.
func announced(t require.TestingT, g *store.Grant) []events.LifecycleEvent {
	if h, ok := t.(testing.TB); ok {
		h.Helper()
	}
	var out []events.LifecycleEvent
	if g.Outbox == nil {
		return nil
	}
	for _, e := range g.Outbox.Events {
		decoded, err := events.DecodeLifecycle(e.Data)
		require.NoError(t, err)
		require.Equal(t, e.ID, decoded.ID)
		out = append(out, decoded)
	}
	return out
}

// reasons lists the events in a grant's outbox as "kind: reason".
func reasons(t require.TestingT, g *store.Grant) []string {
	var out []string
	for _, e := range announced(t, g) {
		out = append(out, e.Kind+": "+string(e.Data.Reason))
	}
	return out
}

func text(s string) secret.Text { return secret.New(s) }
