package refresher_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// changed stores a grant with something in its outbox.
func (r *rig) changed(w *worker, in time.Duration) *store.Grant {
	r.t.Helper()
	g := r.connect(w, meshsim.ConnectSpec{})
	w.settler.Schedule(g, &store.Due{At: r.clock.Now().Add(in), Action: store.Refresh})
	g.Version = 0 // a version has one event
	require.NoError(r.t, w.settler.Announce(g, events.TokenStored, ""))
	g.Version = 1
	require.NoError(r.t, w.settler.Announce(g, events.TokenRefreshed, ""))
	require.NoError(r.t, w.store.Save(r.t.Context(), g))
	return g
}

func TestDeliverSendsTheOutboxAndEmptiesIt(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.changed(w, hour)
	require.NoError(t, w.dispatcher.Deliver(t.Context(), g))

	schedule := r.schedule(g.ID)
	require.Equal(t, "@at "+g.Due.At.Format("2006-01-02T15:04:05.000Z"), schedule.Header.Get("Nats-Schedule"))
	require.Equal(t, r.subjects.RefreshDue(), schedule.Header.Get("Nats-Schedule-Target"))
	require.NotContains(t, schedule.Subject, g.UserID)
	var body events.RefreshDue
	require.NoError(t, json.Unmarshal(schedule.Data, &body))
	want := due(g)
	want.ExpiresAt = *g.Access.ExpiresAt
	require.Equal(t, want, body)

	sent := r.messages(r.subjects.LifecycleStream(), ">")
	require.Len(t, sent, 2)
	for i, m := range sent {
		require.Equal(t, g.Outbox.Events[i].ID, m.Header.Get("Nats-Msg-Id"))
		require.Equal(t, "application/cloudevents+json", m.Header.Get("Content-Type"))
		require.Equal(t, g.Outbox.Events[i].Subject, m.Subject)
		require.JSONEq(t, string(g.Outbox.Events[i].Data), string(m.Data))
	}
	got := r.get(w, g.ID)
	require.Nil(t, got.Outbox)
	require.Equal(t, w.dispatcher.Stream(got.ID), got.Due.Stream)
	require.Equal(t, g.Rev, got.Rev, "sending is no change")

	require.NoError(t, w.dispatcher.Deliver(t.Context(), g), "again, as after a crash")
	require.Len(t, r.messages(r.subjects.LifecycleStream(), ">"), 2)
	require.NotNil(t, r.schedule(g.ID))
	require.NoError(t, w.dispatcher.Deliver(t.Context(), got), "nothing to send")
}

func TestBeyondTheHorizonNothingIsScheduled(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.changed(w, config.Default().Refresh.Horizon+time.Second)
	require.NoError(t, w.dispatcher.Deliver(t.Context(), g))
	require.Nil(t, r.schedule(g.ID))
	got := r.get(w, g.ID)
	require.Nil(t, got.Outbox)
	require.Empty(t, got.Due.Stream, "the reconciler sees that it is missing")
}

func TestNoActionCancelsTheSchedule(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g, other := r.changed(w, hour), r.changed(w, hour)
	require.NoError(t, w.dispatcher.Deliver(t.Context(), g))
	require.NoError(t, w.dispatcher.Deliver(t.Context(), other))
	w.settler.Schedule(g, nil)
	require.NoError(t, w.store.Save(t.Context(), g))
	require.NoError(t, w.dispatcher.Deliver(t.Context(), g))
	require.Nil(t, r.schedule(g.ID))
	require.NotNil(t, r.schedule(other.ID))

	require.NoError(t, w.dispatcher.Unschedule(t.Context(), other.ID))
	require.Nil(t, r.schedule(other.ID))
}

func TestARevokedGrantsRecordGoesWithItsLastEvent(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.changed(w, hour)
	g.State = store.Revoked
	w.settler.Schedule(g, nil)
	require.NoError(t, w.store.Save(t.Context(), g))

	old := g.Clone()
	old.Rev-- // connected anew after this copy was read
	require.NoError(t, w.dispatcher.Deliver(t.Context(), old))
	r.get(w, g.ID)

	require.NoError(t, w.dispatcher.Deliver(t.Context(), g))
	_, err := w.store.Get(t.Context(), g.ID)
	require.ErrorIs(t, err, store.ErrNotFound)
	require.Len(t, r.told("user"), 2)
}

func TestWhatChangedMeanwhileKeepsItsOutbox(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.changed(w, hour)
	newer := g.Clone()
	require.NoError(t, w.settler.Announce(newer, events.TokenExpiring, events.ReasonMFARequired))
	require.NoError(t, w.store.Save(t.Context(), newer))
	require.NoError(t, w.dispatcher.Deliver(t.Context(), g))
	require.Len(t, r.get(w, g.ID).Outbox.Events, 3)
	require.NoError(t, w.dispatcher.Deliver(t.Context(), newer))
	require.Equal(t, []string{"token.stored: ", "token.refreshed: ", "token.expiring: mfa_required"}, r.told("user"))
}

func TestAFailedPublishLeavesTheOutbox(t *testing.T) {
	for name, c := range map[string]struct{ fail, mend func(r *rig) }{
		"no stream for events": {
			func(r *rig) { require.NoError(r.t, r.js.DeleteStream(r.t.Context(), r.subjects.LifecycleStream())) },
			func(r *rig) { _, err := r.streams.Ensure(r.t.Context()); require.NoError(r.t, err) },
		},
		"no server": {func(r *rig) { r.broker.Stop() }, func(r *rig) { r.broker.Restart() }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w := r.worker("a")
			g := r.changed(w, hour)
			before := r.get(w, g.ID)
			c.fail(r)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.Error(t, w.dispatcher.Deliver(ctx, g))
			require.Equal(t, before, r.get(w, g.ID))
			c.mend(r)
			r.eventually(func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				return w.dispatcher.Deliver(ctx, g) == nil
			}, "delivered once NATS is back")
			// Each once. What a server that is just starting refuses may come after what it takes.
			require.ElementsMatch(t, []string{"token.stored: ", "token.refreshed: "}, r.told("user"))
			require.Nil(t, r.get(w, g.ID).Outbox)
		})
	}
}

func TestSendOutlivesItsCaller(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.changed(w, hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.dispatcher.Send(ctx, g)
	require.Nil(t, r.get(w, g.ID).Outbox)
	require.Len(t, r.told("user"), 2)
}
