package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store"
)

func TestInsertAndGet(t *testing.T) {
	s := open(t)
	g := active("g")
	g.Rev = 99
	insert(t, s, g)
	require.EqualValues(t, 1, g.Rev)
	require.Equal(t, g, get(t, s, "g"))

	require.ErrorIs(t, s.Insert(t.Context(), active("g")), store.ErrConflict)
	_, err := s.Get(t.Context(), "none")
	require.ErrorIs(t, err, store.ErrNotFound)
	require.ErrorContains(t, err, "none")
}

func TestByUser(t *testing.T) {
	s := open(t)
	other := active("c")
	other.UserID = "another"
	insert(t, s, active("a"), active("b"), other)
	found, err := s.ByUser(t.Context(), "user")
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"a", "b"}, ids(found))
	found, err = s.ByUser(t.Context(), "nobody")
	require.NoError(t, err)
	require.Empty(t, found)
	// What looks like a query is only a name.
	found, err = s.ByUser(t.Context(), `{"$ne":null}`)
	require.NoError(t, err)
	require.Empty(t, found)
}

func TestSaveOnlyOverWhatWasRead(t *testing.T) {
	s := open(t)
	insert(t, s, active("g"))
	mine, theirs := get(t, s, "g"), get(t, s, "g")

	theirs.Version = 2
	require.NoError(t, s.Save(t.Context(), theirs))
	require.EqualValues(t, 2, theirs.Rev)

	mine.Version = 7
	require.ErrorIs(t, s.Save(t.Context(), mine), store.ErrConflict)
	require.EqualValues(t, 1, mine.Rev, "the revision is still the one that was read")
	require.Equal(t, theirs, get(t, s, "g"))

	require.NoError(t, s.Save(t.Context(), theirs), "one may save again what one has saved")
	require.EqualValues(t, 3, get(t, s, "g").Rev)
	require.ErrorIs(t, s.Save(t.Context(), active("none")), store.ErrConflict)
}

func TestSaveRemovesWhatIsGone(t *testing.T) {
	s := open(t)
	g := active("g")
	g.Outbox, g.Lease, g.Reason = outbox(now), &store.Lease{Owner: "w", Until: now}, "rejected"
	insert(t, s, g)
	g.Outbox, g.Lease, g.Due, g.Access, g.Reason = nil, nil, nil, nil, ""
	require.NoError(t, s.Save(t.Context(), g))
	require.Equal(t, g, get(t, s, "g"))
}

func TestDeleteOnlyWhatWasRead(t *testing.T) {
	s := open(t)
	insert(t, s, active("g"))
	stale, g := get(t, s, "g"), get(t, s, "g")
	require.NoError(t, s.Save(t.Context(), g))
	require.ErrorIs(t, s.Delete(t.Context(), stale), store.ErrConflict)
	require.NoError(t, s.Delete(t.Context(), g))
	_, err := s.Get(t.Context(), "g")
	require.ErrorIs(t, err, store.ErrNotFound)
	require.ErrorIs(t, s.Delete(t.Context(), g), store.ErrConflict)
}

func TestClearOutbox(t *testing.T) {
	s := open(t)
	g := active("g")
	g.Outbox = outbox(now)
	insert(t, s, g)
	require.NoError(t, s.ClearOutbox(t.Context(), g, "stream-1"))
	after := get(t, s, "g")
	require.Nil(t, after.Outbox)
	require.Equal(t, "stream-1", after.Due.Stream)
	require.Equal(t, g.Rev, after.Rev)
}

func TestClearOutboxWithoutAStreamLeavesTheSchedule(t *testing.T) {
	s := open(t)
	g := active("g")
	g.Due.Stream, g.Outbox = "stream-1", outbox(now)
	insert(t, s, g)
	require.NoError(t, s.ClearOutbox(t.Context(), g, ""))
	require.Equal(t, "stream-1", get(t, s, "g").Due.Stream)

	idle := active("idle")
	idle.Due, idle.Outbox = nil, outbox(now)
	insert(t, s, idle)
	require.NoError(t, s.ClearOutbox(t.Context(), idle, "stream-1"))
	require.Nil(t, get(t, s, "idle").Due, "what is not due is not made due")
	require.Nil(t, get(t, s, "idle").Outbox)
}

func TestSentOfAnOlderRevisionDoesNothing(t *testing.T) {
	s := open(t)
	g := active("g")
	g.Outbox = outbox(now)
	insert(t, s, g)
	stale := g.Clone()
	g.Outbox.Events[0].ID = "e2"
	require.NoError(t, s.Save(t.Context(), g))
	require.NoError(t, s.ClearOutbox(t.Context(), stale, "stream-1"))
	require.Equal(t, g, get(t, s, "g"))
}

func TestRecordReschedule(t *testing.T) {
	s := open(t)
	g := active("g")
	insert(t, s, g)
	require.NoError(t, s.RecordReschedule(t.Context(), g, now))
	require.ErrorIs(t, s.RecordReschedule(t.Context(), g, now), store.ErrConflict, "another worker was first")
	require.NoError(t, s.RecordReschedule(t.Context(), get(t, s, "g"), now.Add(time.Minute)))
	due := get(t, s, "g").Due
	require.Equal(t, 2, due.Reschedules)
	require.Equal(t, now.Add(time.Minute), due.RescheduledAt)
	require.Equal(t, g.Due.At, due.At)

	stale := g.Clone()
	require.NoError(t, s.Save(t.Context(), g))
	require.ErrorIs(t, s.RecordReschedule(t.Context(), stale, now), store.ErrConflict)
	require.Equal(t, g, get(t, s, "g"))
}

func TestChange(t *testing.T) {
	s := open(t)
	insert(t, s, active("g"))
	read := get(t, s, "g")
	other := read.Clone()
	other.Attempts = 5
	require.NoError(t, s.Save(t.Context(), other))

	calls := 0
	raise := func(g *store.Grant) (*store.Grant, error) {
		calls++
		next := g.Clone()
		next.Attempts++
		return next, nil
	}
	saved, err := s.Change(t.Context(), read, raise)
	require.NoError(t, err)
	require.Equal(t, 2, calls)
	require.Equal(t, 6, saved.Attempts)
	require.Equal(t, get(t, s, "g"), saved)

	saved, err = s.Change(t.Context(), saved, func(*store.Grant) (*store.Grant, error) { return nil, nil })
	require.NoError(t, err)
	require.Nil(t, saved)
	for _, refusal := range []error{store.ErrStale, store.ErrConflict} {
		_, err = s.Change(t.Context(), read, func(*store.Grant) (*store.Grant, error) { return nil, refusal })
		require.ErrorIs(t, err, refusal)
	}
	require.Equal(t, 6, get(t, s, "g").Attempts)

	require.NoError(t, s.Delete(t.Context(), get(t, s, "g")))
	_, err = s.Change(t.Context(), read, raise)
	require.ErrorIs(t, err, store.ErrNotFound)
}
