package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/store"
)

func held() *store.Outbox {
	return &store.Outbox{Since: now, Schedule: true, Held: true, Events: []store.OutboxEvent{{ID: "e", Subject: "s", Data: []byte("d")}}}
}

func TestAHeldOutboxIsNotWrittenUntilItIsOwed(t *testing.T) {
	s := open(t)
	g := active("g")
	g.Due.Stream = "stream"
	g.Outbox = held()
	insert(t, s, g)
	require.NotNil(t, g.Outbox, "its holder keeps it")
	require.Nil(t, get(t, s, "g").Outbox)
	g.Version = 2
	require.NoError(t, s.Save(t.Context(), g))
	require.Nil(t, get(t, s, "g").Outbox)

	require.NoError(t, s.Owe(t.Context(), g))
	got := get(t, s, "g")
	want := held()
	want.Held = false
	require.Equal(t, want, got.Outbox)
	require.Empty(t, got.Due.Stream)
	require.Equal(t, g.Rev, got.Rev)

	g.Due = nil
	require.NoError(t, s.Save(t.Context(), g))
	require.NoError(t, s.Owe(t.Context(), g))
	require.NotNil(t, get(t, s, "g").Outbox)
	require.Nil(t, get(t, s, "g").Due)
}

func TestWhatHasChangedSinceIsNotOwed(t *testing.T) {
	db := enginestest.MongoDB(t)
	s := connect(t, options(t, db))
	require.NoError(t, s.Ensure(t.Context()))
	g := active("g")
	g.Outbox = held()
	insert(t, s, g)
	require.NoError(t, s.Save(t.Context(), get(t, s, "g")))
	require.ErrorIs(t, s.Owe(t.Context(), g), store.ErrConflict)
	require.Nil(t, get(t, s, "g").Outbox)

	db.Proxy().FailWrites(13, func(string, string) bool { return true })
	require.ErrorContains(t, s.Owe(t.Context(), g), "writing what is untold")
}
