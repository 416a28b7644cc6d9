package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// now is when the tests take place.
var now = time.Date(2031, 5, 6, 7, 8, 9, 250e6, time.UTC)

func options(t testing.TB, db *enginestest.Database) store.Options {
	return store.Options{URI: secret.New(db.URI()), Database: enginestest.Name(t), Timeout: 20 * time.Second, AppName: "store-test"}
}

func connect(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// open returns a store over a server and a database of its own.
func open(t testing.TB) *store.Store {
	t.Helper()
	s := connect(t, options(t, enginestest.MongoDB(t)))
	require.NoError(t, s.Ensure(t.Context()))
	return s
}

// active returns a grant that is due in an hour.
func active(id string) *store.Grant {
	end := now.Add(time.Hour)
	return &store.Grant{
		ID: id, UserID: "user", BrokerType: "coinbase", BrokerName: "Coinbase",
		Accounts: []store.Account{{ID: "acc-1", Name: "Main", ExpiresAt: &end}}, State: store.Active,
		ConnectedAt: now, Version: 1, Sealed: envelope.Blob{KeyID: "k", Data: []byte{1, 2, 3}},
		Access: &store.Lifetime{Since: now, ExpiresAt: &end}, Refresh: &store.Lifetime{Since: now},
		Due: &store.Due{At: end, Action: store.Refresh},
	}
}

func insert(t testing.TB, s *store.Store, grants ...*store.Grant) {
	t.Helper()
	for _, g := range grants {
		require.NoError(t, s.Insert(t.Context(), g))
	}
}

func get(t testing.TB, s *store.Store, id string) *store.Grant {
	t.Helper()
	g, err := s.Get(t.Context(), id)
	require.NoError(t, err)
	return g
}

func ids(grants []*store.Grant) []string {
	out := []string{}
	for _, g := range grants {
		out = append(out, g.ID)
	}
	return out
}

func outbox(since time.Time) *store.Outbox {
	return &store.Outbox{Since: since, Schedule: true, Events: []store.OutboxEvent{{ID: "e1", Subject: events.TokenStored + ".user", Data: []byte(`{}`)}}}
}
