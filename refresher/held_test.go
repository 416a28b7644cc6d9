package refresher_test

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// The message that a refresh was made for is acknowledged when all is told, so
// the outbox need not be written.

// noEvents has NATS take no events until mended.
func (r *rig) noEvents() {
	require.NoError(r.t, r.js.DeleteStream(r.t.Context(), r.subjects.LifecycleStream()))
}

func (r *rig) eventsAgain() {
	_, err := r.streams.Ensure(r.t.Context())
	require.NoError(r.t, err)
}

// refuse has the database refuse writes of grants after so many.
func (r *rig) refuse(after int64) {
	var writes atomic.Int64
	r.db.Proxy().FailWrites(91, func(command, collection string) bool {
		return command == "update" && collection == "grants" && writes.Add(1) > after
	})
}

func TestARefreshWritesItsGrantOnceAfterTheLease(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{})
	r.refuse(1)
	require.NoError(t, w.Due(t.Context(), due(g), false))
	r.failWrites(false)

	got := r.get(w, g.ID)
	require.Nil(t, got.Outbox)
	require.Equal(t, w.dispatcher.Stream(g.ID), got.Due.Stream)
	require.Equal(t, g.Rev+2, got.Rev)
	require.NotNil(t, r.schedule(g.ID))
	require.Equal(t, []string{"token.refreshed: "}, r.told("user"))
}

func TestWhatCannotBeToldIsWrittenForReconciliation(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{})
	r.noEvents()
	require.NoError(t, w.Due(t.Context(), due(g), false))
	got := r.get(w, g.ID)
	require.Len(t, got.Outbox.Events, 1)
	require.Empty(t, got.Due.Stream)

	r.eventsAgain()
	r.clock.advance(2 * slack)
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.Equal(t, []string{"token.refreshed: "}, r.told("user"))
	require.Nil(t, r.get(w, g.ID).Outbox)
}

// Neither NATS nor the database would take it: the message comes again.
func TestWhatIsNeitherToldNorWrittenIsToldWhenTheMessageComesAgain(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	g := r.connect(a, meshsim.ConnectSpec{})
	r.noEvents()
	r.refuse(1)
	require.Error(t, a.Due(t.Context(), due(g), false))
	got := r.get(a, g.ID)
	require.Equal(t, int64(2), got.Version)
	require.Nil(t, got.Outbox)

	b := r.worker("b")
	require.Error(t, b.Due(t.Context(), due(g), true), "not yet")
	r.failWrites(false)
	r.eventsAgain()
	require.NoError(t, b.Due(t.Context(), due(g), true))
	require.NoError(t, b.Due(t.Context(), due(g), true), "and again")
	require.Equal(t, []string{"token.refreshed: "}, r.told("user"))
	require.NotNil(t, r.schedule(g.ID))
	require.Equal(t, 1, r.calls())
	require.Equal(t, got, r.get(b, g.ID))
}

// Whoever refreshed on in the meantime told only what it did itself.
func TestAMessageThatComesAgainTellsItsOwnVersion(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{})
	r.noEvents()
	r.refuse(1)
	require.Error(t, w.Due(t.Context(), due(g), false))
	r.failWrites(false)
	r.eventsAgain()
	next, err := w.Now(t.Context(), r.get(w, g.ID))
	require.NoError(t, err)
	require.Equal(t, int64(3), next.Version)

	require.NoError(t, w.Due(t.Context(), due(g), true))
	versions := map[int64]bool{}
	for _, m := range r.messages(r.subjects.LifecycleStream(), ">") {
		e, err := events.DecodeLifecycle(m.Data)
		require.NoError(t, err)
		require.False(t, versions[e.Data.Version])
		versions[e.Data.Version] = true
	}
	require.Equal(t, map[int64]bool{2: true, 3: true}, versions)
}

func TestAMessageThatComesAgainIsHandledIfNothingCameOfIt(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{})
	require.NoError(t, w.Due(t.Context(), due(g), true))
	require.Equal(t, int64(2), r.get(w, g.ID).Version)

	gone := due(g)
	gone.GrantID = "gone"
	require.NoError(t, w.Due(t.Context(), gone, true))

	r.db.Proxy().Cut()
	require.Error(t, w.Due(t.Context(), due(g), true))
	r.db.Proxy().Restore()
}

// What was untold before is in the document, and stays there until it is sent.
func TestAnOlderOutboxIsNotHeld(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
		require.NoError(t, w.settler.Announce(g, events.TokenStored, ""))
	})
	r.noEvents()
	require.NoError(t, w.Due(t.Context(), due(g), false))
	require.Len(t, r.get(w, g.ID).Outbox.Events, 2)
}

func TestAnAnswerThatArrivedUnnoticedIsTold(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{})
	r.db.Proxy().LoseAnswers(func(command, collection string) bool { return command == "update" && collection == "grants" })
	require.NoError(t, w.Due(t.Context(), due(g), false))
	r.db.Proxy().LoseAnswers(nil)
	require.Empty(t, r.told("user"))
	require.NotEmpty(t, r.entries())
	for range 2 {
		require.NoError(t, w.Recover(t.Context(), r.entries()[0]))
		require.Equal(t, []string{"token.refreshed: "}, r.told("user"))
	}
	require.NotNil(t, r.schedule(g.ID))
}
