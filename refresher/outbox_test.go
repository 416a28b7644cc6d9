package refresher_test

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// noEvents has NATS take no events until eventsAgain.
func (r *rig) noEvents() {
	require.NoError(r.t, r.js.DeleteStream(r.t.Context(), r.subjects.LifecycleStream()))
}

func (r *rig) eventsAgain() {
	_, err := r.streams.Ensure(r.t.Context())
	require.NoError(r.t, err)
}

// restored gives NATS and the database back, and has another worker reconcile.
func (r *rig) restored(w *worker) {
	r.eventsAgain()
	r.clock.advance(2 * slack)
	require.NoError(r.t, w.reconciler.Pass(r.t.Context()))
}

// Whatever changes a grant saves what is to be published with the change. What a
// process publishes after that, and whether a message comes again, does not matter.
func TestEveryChangeIsAnnouncedThoughItsWorkerAndTheMessageAreGone(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(r *rig, w *worker, g *store.Grant)
		want string
	}{
		"a refresh that was due": {func(r *rig, w *worker, g *store.Grant) {
			require.NoError(r.t, w.Due(r.t.Context(), due(g)))
		}, "token.refreshed: "},
		"a refresh on request": {func(r *rig, w *worker, g *store.Grant) {
			_, err := w.Now(r.t.Context(), g)
			require.NoError(r.t, err)
		}, "token.refreshed: "},
		"an answer from the recovery stream": {func(r *rig, w *worker, g *store.Grant) {
			r.failWrites(true)
			require.NoError(r.t, w.Due(r.t.Context(), due(g)))
			r.failWrites(false)
			require.NoError(r.t, w.Recover(r.t.Context(), r.entries()[0]))
		}, "token.refreshed: "},
		"a refusal": {func(r *rig, w *worker, g *store.Grant) {
			require.NoError(r.t, r.sim.Script(g.Accounts[0].ID, meshsim.Killed("gone")))
			require.NoError(r.t, w.Due(r.t.Context(), due(g)))
		}, "token.expiring: rejected"},
		"a user who must act": {func(r *rig, w *worker, g *store.Grant) {
			require.NoError(r.t, r.sim.Script(g.Accounts[0].ID, meshsim.MFARequired()))
			require.NoError(r.t, w.Due(r.t.Context(), due(g)))
		}, "token.expiring: mfa_required"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			a, b := r.worker("a"), r.worker("b")
			g := r.connect(a, meshsim.ConnectSpec{})
			r.noEvents()
			change.do(r, a, g)
			require.Len(t, r.get(a, g.ID).Outbox.Events, 1)
			r.restored(b)
			require.Equal(t, []string{change.want}, r.told("user"))
			require.Nil(t, r.get(b, g.ID).Outbox)
		})
	}
}

// The answer is saved, and its worker learns neither that nor anything else.
func TestAnAnswerThatWasSavedUnnoticedIsAnnounced(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{})
	r.db.Proxy().LoseAnswers(func(command, collection string) bool { return command == "update" && collection == "grants" })
	require.NoError(t, w.Due(t.Context(), due(g)))
	r.db.Proxy().LoseAnswers(nil)
	require.Empty(t, r.told("user"))
	require.NotEmpty(t, r.entries())
	for range 2 {
		require.NoError(t, w.Recover(t.Context(), r.entries()[0]))
		require.Equal(t, []string{"token.refreshed: "}, r.told("user"))
	}
	require.NotNil(t, r.schedule(g.ID))
}

// A writer who read the grant before a change that is not published yet can't
// overwrite what is to be published.
func TestAnOutboxIsNotOverwrittenFromAnOlderCopy(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{})
	r.noEvents()
	require.NoError(t, w.Due(t.Context(), due(g)))
	require.ErrorIs(t, w.store.Save(t.Context(), g), store.ErrConflict)

	// What follows adds to it.
	next, err := w.Now(t.Context(), r.get(w, g.ID))
	require.NoError(t, err)
	require.Equal(t, int64(3), next.Version)
	require.Len(t, r.get(w, g.ID).Outbox.Events, 2)
	r.restored(w)
	versions := map[int64]bool{}
	for _, m := range r.messages(r.subjects.LifecycleStream(), ">") {
		e, err := events.DecodeLifecycle(m.Data)
		require.NoError(t, err)
		require.False(t, versions[e.Data.Version])
		versions[e.Data.Version] = true
	}
	require.Equal(t, map[int64]bool{2: true, 3: true}, versions)
}

// An outbox that was published and not cleared is published again under the same id.
func TestAnOutboxThatCouldNotBeClearedIsPublishedAgainUnderItsID(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.changed(w, hour)
	r.failWrites(true)
	w.dispatcher.Send(t.Context(), g)
	r.sent()
	r.failWrites(false)
	require.NotNil(t, r.get(w, g.ID).Outbox)
	r.restored(w)
	require.Nil(t, r.get(w, g.ID).Outbox)
	require.Equal(t, []string{"token.stored: ", "token.refreshed: "}, r.told("user"), "NATS drops what it has already")
}

// The record of an expired grant does not go before what is to be told of it.
func TestARecordIsNotDroppedBeforeItsEventsAreTold(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	expired := func(id, subject string) *store.Grant {
		return r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
			g.ID = id
			require.NoError(t, w.settler.Expire(g, events.ReasonRejected))
			at := r.clock.Now().Add(-hour)
			g.PurgeAt = &at
			if subject != "" {
				g.Outbox.Events[0].Subject = subject
			}
		})
	}
	told, stuck := expired("a", ""), expired("b", "of.no.stream")
	require.ErrorContains(t, w.reconciler.Pass(t.Context()), "grant b")
	require.Equal(t, []string{"token.expired: rejected"}, r.told("user"))
	_, err := w.store.Get(t.Context(), told.ID)
	require.ErrorIs(t, err, store.ErrNotFound)
	require.NotNil(t, r.get(w, stuck.ID).Outbox)
}

// Where outboxes can't be delivered, whoever makes changes waits before there are
// too many on their way.
func TestOutboxesOnTheirWayAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.worker("a")
	g := r.changed(w, hour)
	// A subject with a subscriber and without a stream: nobody acknowledges, and
	// nobody refuses.
	r.noEvents()
	for _, kind := range events.LifecycleKinds {
		_, err := r.js.Conn().Subscribe(r.subjects.LifecycleAll(kind), func(*nats.Msg) {})
		require.NoError(t, err)
	}
	for range refresher.MaxSending {
		w.dispatcher.Send(t.Context(), g)
	}
	require.Zero(t, r.logs.FilterMessageSnippet("an outbox could not be delivered").Len())
	w.dispatcher.Send(t.Context(), g)
	require.NotZero(t, r.logs.FilterMessageSnippet("an outbox could not be delivered").Len(), "a place was free though none was given back")
}
