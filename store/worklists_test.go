package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store"
)

// dueIn returns a grant that is due after d and whose schedule lies in a stream.
func dueIn(id string, d time.Duration, stream string) *store.Grant {
	g := active(id)
	g.Due = &store.Due{At: now.Add(d), Action: store.Refresh, Stream: stream}
	return g
}

func TestUnscheduled(t *testing.T) {
	s := open(t)
	idle := active("idle")
	idle.Due = nil
	insert(t, s,
		dueIn("third", 3*time.Hour, ""), dueIn("first", -time.Hour, "old"), dueIn("second", time.Hour, "old"),
		dueIn("scheduled", time.Hour, "new"), dueIn("at the horizon", 4*time.Hour, ""), dueIn("beyond", 5*time.Hour, ""), idle)
	others, err := s.OtherStreams(t.Context(), []string{"new", "newer"})
	require.NoError(t, err)
	require.Equal(t, []string{"", "old"}, others)
	others, err = s.OtherStreams(t.Context(), []string{"", "new", "old"})
	require.NoError(t, err)
	require.Empty(t, others)
	list := func(stream string, skip, limit int) []string {
		found, err := s.ScheduledIn(t.Context(), stream, now.Add(4*time.Hour), skip, limit)
		require.NoError(t, err)
		return ids(found)
	}
	require.Equal(t, []string{"third"}, list("", 0, 10))
	require.Equal(t, []string{"first", "second"}, list("old", 0, 10))
	require.Equal(t, []string{"first"}, list("old", 0, 1))
	require.Equal(t, []string{"second"}, list("old", 1, 10))
	require.Empty(t, list("old", 2, 10))
}

func TestOverdue(t *testing.T) {
	s := open(t)
	idle := active("idle")
	idle.Due = nil
	insert(t, s,
		dueIn("late", -time.Minute, "s"), dueIn("later", -2*time.Minute, "s"), dueIn("latest", -time.Hour, ""),
		dueIn("at the end", 0, "s"), dueIn("at the start", -2*time.Hour, "s"), dueIn("before", -3*time.Hour, "s"), dueIn("to come", time.Hour, "s"), idle)
	list := func(after time.Time, limit int) []string {
		found, err := s.Overdue(t.Context(), after, now, limit)
		require.NoError(t, err)
		return ids(found)
	}
	require.Equal(t, []string{"latest", "later", "late"}, list(now.Add(-2*time.Hour), 10))
	require.Equal(t, []string{"latest"}, list(now.Add(-2*time.Hour), 1))
	require.Equal(t, []string{"before", "at the start", "latest", "later", "late"}, list(time.Time{}, 10))
}

func TestUnsent(t *testing.T) {
	s := open(t)
	waiting := func(id string, d time.Duration) *store.Grant {
		g := active(id)
		g.Outbox = outbox(now.Add(d))
		return g
	}
	insert(t, s, waiting("b", -time.Minute), waiting("a", -time.Hour), waiting("just now", 0), active("nothing to send"))
	found, err := s.Unsent(t.Context(), now, 10)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, ids(found))
	found, err = s.Unsent(t.Context(), now, 1)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, ids(found))
}

func TestPurgeable(t *testing.T) {
	s := open(t)
	dead := func(id string, d time.Duration) *store.Grant {
		g := active(id)
		at := now.Add(d)
		g.State, g.PurgeAt = store.Expired, &at
		return g
	}
	insert(t, s, dead("b", -time.Minute), dead("a", -time.Hour), dead("not yet", 0), active("alive"))
	found, err := s.Purgeable(t.Context(), now, 10)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, ids(found))
	found, err = s.Purgeable(t.Context(), now, 1)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, ids(found))
}
