package refresher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/clocktest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/refresher/refreshertest"
	"github.com/latchkey/latchkey/store"
)

const (
	hour = time.Hour
	day  = 24 * time.Hour

	patience = refreshertest.Patience
)

// t0 is the start of time in tests that need no real one.
var t0 = time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)

var (
	newClock = clocktest.New
	settler  = refreshertest.Settler
	punctual = refreshertest.PunctualSettler
	lasting  = refreshertest.Lasting
	endless  = refreshertest.Endless
	due      = refreshertest.Due
)

type (
	clock  = clocktest.Clock
	worker = refreshertest.Worker
)

func policy() refresher.Policy { return settler(newClock(t0), 0).Policy }

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

// must returns what a constructor has made of complete options.
func must[T any](made T, err error) T {
	if err != nil {
		panic(err)
	}
	return made
}
