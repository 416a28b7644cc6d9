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
	require.NoError(r.T, r.JS.DeleteStream(r.T.Context(), r.Subjects.LifecycleStream()))
}

func (r *rig) eventsAgain() {
	_, err := r.Streams.Ensure(r.T.Context())
	require.NoError(r.T, err)
}

// restored gives NATS and the database back, and has another worker reconcile.
func (r *rig) restored(w *worker) {
	r.eventsAgain()
	r.Clock.Advance(2 * slack)
	require.NoError(r.T, w.Reconciler.Pass(r.T.Context()))
}

// Whatever changes a grant saves what is to be published with the change. What a
// process publishes after that, and whether a message comes again, does not matter.
func TestEveryChangeIsAnnouncedThoughItsWorkerAndTheMessageAreGone(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(r *rig, w *worker, g *store.Grant)
		want string
	}{
		"a refresh that was due": {func(r *rig, w *worker, g *store.Grant) {
			require.NoError(r.T, w.HandleDue(r.T.Context(), due(g)))
		}, "token.refreshed: "},
		"a refresh on request": {func(r *rig, w *worker, g *store.Grant) {
			_, err := w.RefreshNow(r.T.Context(), g)
			require.NoError(r.T, err)
		}, "token.refreshed: "},
		"an answer from the recovery stream": {func(r *rig, w *worker, g *store.Grant) {
			r.FailWrites(true)
			require.NoError(r.T, w.HandleDue(r.T.Context(), due(g)))
			r.FailWrites(false)
			require.NoError(r.T, w.Recover(r.T.Context(), r.RecoveryEntries()[0]))
		}, "token.refreshed: "},
		"a refusal": {func(r *rig, w *worker, g *store.Grant) {
			require.NoError(r.T, r.Sim.Script(g.Accounts[0].ID, meshsim.Killed("gone")))
			require.NoError(r.T, w.HandleDue(r.T.Context(), due(g)))
		}, "token.expiring: rejected"},
		"a user who must act": {func(r *rig, w *worker, g *store.Grant) {
			require.NoError(r.T, r.Sim.Script(g.Accounts[0].ID, meshsim.MFARequired()))
			require.NoError(r.T, w.HandleDue(r.T.Context(), due(g)))
		}, "token.expiring: mfa_required"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			a, b := r.Worker("a"), r.Worker("b")
			g := r.Connect(a, meshsim.ConnectSpec{})
			r.noEvents()
			change.do(r, a, g)
			require.Len(t, r.Get(a, g.ID).Outbox.Events, 1)
			r.restored(b)
			require.Equal(t, []string{change.want}, r.LifecycleEvents("user"))
			require.Nil(t, r.Get(b, g.ID).Outbox)
		})
	}
}

// The answer is saved, and its worker learns neither that nor anything else.
func TestAnAnswerThatWasSavedUnnoticedIsAnnounced(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{})
	r.DB.Proxy().LoseAnswers(func(command, collection string) bool { return command == "update" && collection == "grants" })
	require.NoError(t, w.HandleDue(t.Context(), due(g)))
	r.DB.Proxy().LoseAnswers(nil)
	require.Empty(t, r.LifecycleEvents("user"))
	require.NotEmpty(t, r.RecoveryEntries())
	for range 2 {
		require.NoError(t, w.Recover(t.Context(), r.RecoveryEntries()[0]))
		require.Equal(t, []string{"token.refreshed: "}, r.LifecycleEvents("user"))
	}
	require.NotNil(t, r.schedule(g.ID))
}

// A writer who read the grant before a change that is not published yet can't
// overwrite what is to be published.
func TestAnOutboxIsNotOverwrittenFromAnOlderCopy(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{})
	r.noEvents()
	require.NoError(t, w.HandleDue(t.Context(), due(g)))
	require.ErrorIs(t, w.Store.Save(t.Context(), g), store.ErrConflict)

	// What follows adds to it.
	next, err := w.RefreshNow(t.Context(), r.Get(w, g.ID))
	require.NoError(t, err)
	require.Equal(t, int64(3), next.Version)
	require.Len(t, r.Get(w, g.ID).Outbox.Events, 2)
	r.restored(w)
	versions := map[int64]bool{}
	for _, m := range r.Messages(r.Subjects.LifecycleStream(), ">") {
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
	w := r.Worker("a")
	g := r.changed(w, hour)
	r.FailWrites(true)
	w.Dispatcher.Send(t.Context(), g)
	r.WaitSent()
	r.FailWrites(false)
	require.NotNil(t, r.Get(w, g.ID).Outbox)
	r.restored(w)
	require.Nil(t, r.Get(w, g.ID).Outbox)
	require.Equal(t, []string{"token.stored: ", "token.refreshed: "}, r.LifecycleEvents("user"), "NATS drops what it has already")
}

// The record of an expired grant does not go before what is to be told of it.
func TestARecordIsNotDroppedBeforeItsEventsAreTold(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	expired := func(id, subject string) *store.Grant {
		return r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
			g.ID = id
			require.NoError(t, w.Settler.Expire(g, events.ReasonRejected))
			at := r.Clock.Now().Add(-hour)
			g.PurgeAt = &at
			if subject != "" {
				g.Outbox.Events[0].Subject = subject
			}
		})
	}
	told, stuck := expired("a", ""), expired("b", "of.no.stream")
	require.ErrorContains(t, w.Reconciler.Pass(t.Context()), "grant b")
	require.Equal(t, []string{"token.expired: rejected"}, r.LifecycleEvents("user"))
	_, err := w.Store.Get(t.Context(), told.ID)
	require.ErrorIs(t, err, store.ErrNotFound)
	require.NotNil(t, r.Get(w, stuck.ID).Outbox)
}

// Where outboxes can't be delivered, whoever makes changes waits before there are
// too many on their way.
func TestOutboxesOnTheirWayAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.Worker("a")
	g := r.changed(w, hour)
	// A subject with a subscriber and without a stream: nobody acknowledges, and
	// nobody refuses.
	r.noEvents()
	for _, kind := range events.LifecycleKinds {
		_, err := r.JS.Conn().Subscribe(r.Subjects.LifecycleAll(kind), func(*nats.Msg) {})
		require.NoError(t, err)
	}
	for range refresher.MaxSending {
		w.Dispatcher.Send(t.Context(), g)
	}
	require.Zero(t, r.Logs.FilterMessageSnippet("an outbox could not be delivered").Len())
	w.Dispatcher.Send(t.Context(), g)
	require.NotZero(t, r.Logs.FilterMessageSnippet("an outbox could not be delivered").Len(), "a place was free though none was given back")
}
