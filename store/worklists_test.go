package store_test

import (
	"fmt"
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
		found, err := s.ScheduledIn(t.Context(), stream, now.Add(4*time.Hour), store.Place{}, skip, limit)
		require.NoError(t, err)
		return ids(found.Grants)
	}
	require.Equal(t, []string{"third"}, list("", 0, 10))
	require.Equal(t, []string{"first", "second"}, list("old", 0, 10))
	require.Equal(t, []string{"first"}, list("old", 0, 1))
	require.Equal(t, []string{"second"}, list("old", 1, 10))
	require.Empty(t, list("old", 2, 10))
}

func TestUndueAndDueLate(t *testing.T) {
	s := open(t)
	undue := func(id string, state store.State) *store.Grant {
		g := active(id)
		g.Due, g.State = nil, state
		return g
	}
	insert(t, s, undue("c", store.Active), undue("a", store.Active), undue("b", store.Active), undue("dead", store.Expired),
		dueIn("soon", time.Hour, "s"), dueIn("later", 5*time.Hour, "s"), dueIn("latest", 400*24*time.Hour, ""))
	list := func(page store.Page, err error) []string {
		require.NoError(t, err)
		return ids(page.Grants)
	}
	require.Equal(t, []string{"a", "b", "c"}, list(s.WithNothingDue(t.Context(), store.Place{}, 10)))
	page, err := s.WithNothingDue(t.Context(), store.Place{}, 2)
	require.Equal(t, []string{"a", "b"}, list(page, err))
	require.True(t, page.More)
	require.Equal(t, []string{"c"}, list(s.WithNothingDue(t.Context(), page.Next, 2)))
	require.Equal(t, []string{"later", "latest"}, list(s.DueAfter(t.Context(), now.Add(2*time.Hour), store.Place{}, 10)))
	page, err = s.DueAfter(t.Context(), now.Add(2*time.Hour), store.Place{}, 1)
	require.NoError(t, err)
	require.Equal(t, []string{"latest"}, list(s.DueAfter(t.Context(), now.Add(2*time.Hour), page.Next, 1)))
}

func TestOverdue(t *testing.T) {
	s := open(t)
	idle := active("idle")
	idle.Due = nil
	insert(t, s,
		dueIn("late", -time.Minute, "s"), dueIn("later", -2*time.Minute, "s"), dueIn("latest", -time.Hour, ""),
		dueIn("at the end", 0, "s"), dueIn("at the start", -2*time.Hour, "s"), dueIn("before", -3*time.Hour, "s"), dueIn("to come", time.Hour, "s"), idle)
	list := func(after store.Place, limit int) []string {
		found, err := s.Overdue(t.Context(), now, after, limit)
		require.NoError(t, err)
		return ids(found.Grants)
	}
	require.Equal(t, []string{"latest", "later", "late"}, list(store.Place{At: now.Add(-2 * time.Hour), ID: "at the start"}, 10))
	require.Equal(t, []string{"latest"}, list(store.Place{At: now.Add(-2 * time.Hour), ID: "at the start"}, 1))
	require.Equal(t, []string{"before", "at the start", "latest", "later", "late"}, list(store.Place{}, 10))
}

func TestUnsent(t *testing.T) {
	s := open(t)
	waiting := func(id string, d time.Duration) *store.Grant {
		g := active(id)
		g.Outbox = outbox(now.Add(d))
		return g
	}
	insert(t, s, waiting("b", -time.Minute), waiting("a", -time.Hour), waiting("just now", 0), active("nothing to send"))
	found, err := s.Unsent(t.Context(), now, store.Place{}, 10)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, ids(found.Grants))
	found, err = s.Unsent(t.Context(), now, store.Place{}, 1)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, ids(found.Grants))
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
	found, err := s.Purgeable(t.Context(), now, store.Place{}, 10)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, ids(found.Grants))
	found, err = s.Purgeable(t.Context(), now, store.Place{}, 1)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, ids(found.Grants))
}

func TestEnding(t *testing.T) {
	s := open(t)
	ending := func(id string, d time.Duration, change func(*store.Grant)) *store.Grant {
		g := active(id)
		at := now.Add(d)
		g.Access = &store.Lifetime{Since: at.Add(-time.Hour), ExpiresAt: &at}
		if change != nil {
			change(g)
		}
		return g
	}
	insert(t, s,
		ending("soon", -time.Minute, nil), ending("sooner", -time.Hour, nil), ending("to come", time.Minute, nil),
		ending("announced", -time.Hour, func(g *store.Grant) { g.Warned = "refresh_failing" }),
		ending("expired", -time.Hour, func(g *store.Grant) { g.State = store.Expired }),
		ending("must act", -time.Hour, func(g *store.Grant) { g.State = store.MustAct }),
		ending("without end", 0, func(g *store.Grant) { g.Access.ExpiresAt = nil }),
		ending("never had one", 0, func(g *store.Grant) { g.Access = nil }))
	found, err := s.Ending(t.Context(), now, store.Place{}, 10)
	require.NoError(t, err)
	require.Equal(t, []string{"sooner", "soon"}, ids(found.Grants))
}

// A walk by place sees every grant once, those with the same time too, and goes on
// behind a document that does not decode.
func TestAWalkSeesEveryGrantOnce(t *testing.T) {
	s := open(t)
	var want []string
	for n := range 10 {
		g := dueIn(fmt.Sprintf("g%02d", n), -time.Duration(10-n/4)*time.Minute, "s") // four at a time
		insert(t, s, g)
		want = append(want, g.ID)
	}
	for limit := range 4 {
		var seen []string
		place := store.Place{}
		for pages := 0; ; pages++ {
			require.Less(t, pages, 20)
			page, err := s.Overdue(t.Context(), now, place, limit+1)
			require.NoError(t, err)
			require.Empty(t, page.Unreadable)
			seen = append(seen, ids(page.Grants)...)
			if place = page.Next; !page.More {
				break
			}
		}
		require.Equal(t, want, seen, "%d at a time", limit+1)
	}
}
