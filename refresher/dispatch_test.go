package refresher_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/streams/streamstest"
)

// changed stores a grant with something in its outbox.
func (r *rig) changed(w *worker, in time.Duration) *store.Grant {
	r.T.Helper()
	g := r.Connect(w, meshsim.ConnectSpec{})
	w.Settler.Schedule(g, &store.Due{At: r.Clock.Now().Add(in), Action: store.Refresh})
	g.Version = 0 // a version has one event
	require.NoError(r.T, w.Settler.Announce(g, events.TokenStored, ""))
	g.Version = 1
	require.NoError(r.T, w.Settler.Announce(g, events.TokenRefreshed, ""))
	require.NoError(r.T, w.Store.Save(r.T.Context(), g))
	return g
}

func TestDeliverSendsTheOutboxAndEmptiesIt(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.changed(w, hour)
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), g))

	schedule := r.schedule(g.ID)
	require.Equal(t, "@at "+g.Due.At.Format("2006-01-02T15:04:05.000Z"), schedule.Header.Get("Nats-Schedule"))
	require.Equal(t, r.Subjects.RefreshDue(), schedule.Header.Get("Nats-Schedule-Target"))
	require.NotContains(t, schedule.Subject, g.UserID)
	var body events.RefreshDue
	require.NoError(t, json.Unmarshal(schedule.Data, &body))
	want := due(g)
	want.ExpiresAt = *g.Access.ExpiresAt
	require.True(t, want.Call)
	want.Call = false
	require.Equal(t, want, body, "as workers of an earlier release know it")
	require.NotEmpty(t, schedule.Header.Get(events.HeaderCall))

	sent := r.Messages(r.Subjects.LifecycleStream(), ">")
	require.Len(t, sent, 2)
	for i, m := range sent {
		require.Equal(t, g.Outbox.Events[i].ID, m.Header.Get("Nats-Msg-Id"))
		require.Equal(t, "application/cloudevents+json", m.Header.Get("Content-Type"))
		require.Equal(t, g.Outbox.Events[i].Subject, m.Subject)
		require.JSONEq(t, string(g.Outbox.Events[i].Data), string(m.Data))
	}
	got := r.Get(w, g.ID)
	require.Nil(t, got.Outbox)
	require.Equal(t, w.Dispatcher.Stream(got.ID), got.Due.Stream)
	require.Equal(t, g.Rev, got.Rev, "sending is no change")

	require.NoError(t, w.Dispatcher.Deliver(t.Context(), g), "again, as after a crash")
	require.Len(t, r.Messages(r.Subjects.LifecycleStream(), ">"), 2)
	require.NotNil(t, r.schedule(g.ID))
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), got), "nothing to send")
}

func TestBeyondTheHorizonNothingIsScheduled(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.changed(w, config.Default().Refresh.Horizon+time.Second)
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), g))
	require.Nil(t, r.schedule(g.ID))
	got := r.Get(w, g.ID)
	require.Nil(t, got.Outbox)
	require.Empty(t, got.Due.Stream, "the reconciler sees that it is missing")
}

func TestNoActionCancelsTheSchedule(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g, other := r.changed(w, hour), r.changed(w, hour)
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), g))
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), other))
	w.Settler.Schedule(g, nil)
	require.NoError(t, w.Store.Save(t.Context(), g))
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), g))
	require.Nil(t, r.schedule(g.ID))
	require.NotNil(t, r.schedule(other.ID))

	require.NoError(t, w.Dispatcher.Unschedule(t.Context(), other.ID))
	require.Nil(t, r.schedule(other.ID))
}

// revoked stores a grant that was revoked and whose schedule is to be cancelled.
func (r *rig) revoked(w *worker) *store.Grant {
	r.T.Helper()
	g := r.changed(w, hour)
	g.State = store.Revoked
	w.Settler.Schedule(g, nil)
	require.NoError(r.T, w.Store.Save(r.T.Context(), g))
	return g
}

func TestARevokedGrantsRecordGoesWithItsLastEvent(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.revoked(w)

	old := g.Clone()
	old.Rev-- // connected anew after this copy was read
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), old))
	r.Get(w, g.ID)

	require.NoError(t, w.Dispatcher.Deliver(t.Context(), g))
	_, err := w.Store.Get(t.Context(), g.ID)
	require.ErrorIs(t, err, store.ErrNotFound)
	require.Len(t, r.LifecycleEvents("user"), 2)
}

func TestWhatChangedMeanwhileKeepsItsOutbox(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.changed(w, hour)
	newer := g.Clone()
	require.NoError(t, w.Settler.Announce(newer, events.TokenExpiring, events.ReasonMFARequired))
	require.NoError(t, w.Store.Save(t.Context(), newer))
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), g))
	require.Len(t, r.Get(w, g.ID).Outbox.Events, 3)
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), newer))
	require.Equal(t, []string{"token.stored: ", "token.refreshed: ", "token.expiring: mfa_required"}, r.LifecycleEvents("user"))
}

func TestAFailedPublishLeavesTheOutbox(t *testing.T) {
	for name, c := range map[string]struct{ fail, mend func(r *rig) }{
		"no stream for events": {
			func(r *rig) { require.NoError(r.T, r.JS.DeleteStream(r.T.Context(), r.Subjects.LifecycleStream())) },
			func(r *rig) { _, err := r.Streams.Ensure(r.T.Context()); require.NoError(r.T, err) },
		},
		"no server": {func(r *rig) { r.Broker.Stop() }, func(r *rig) { r.Broker.Restart() }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w := r.Worker("a")
			g := r.changed(w, hour)
			before := r.Get(w, g.ID)
			c.fail(r)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.Error(t, w.Dispatcher.Deliver(ctx, g))
			require.Equal(t, before, r.Get(w, g.ID))
			c.mend(r)
			r.Eventually(func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				return w.Dispatcher.Deliver(ctx, g) == nil
			}, "delivered once NATS is back")
			// Each once. What a server that is just starting refuses may come after what it takes.
			require.ElementsMatch(t, []string{"token.stored: ", "token.refreshed: "}, r.LifecycleEvents("user"))
			require.Nil(t, r.Get(w, g.ID).Outbox)
		})
	}
}

func TestSendOutlivesItsCaller(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.changed(w, hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.Dispatcher.Send(ctx, g)
	require.Nil(t, r.Get(w, g.ID).Outbox)
	require.Len(t, r.LifecycleEvents("user"), 2)
}

// A worker that keeps the user hears of the change no later than anybody else of the event.
func TestAChangeIsToldBeforeItsEvents(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.changed(w, hour)
	nc, err := nats.Connect(r.Broker.URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	heard := make(chan *nats.Msg, 16)
	for _, subject := range []string{r.Subjects.Changed(g.UserID), r.Subjects.Lifecycle(events.TokenStored, g.UserID), r.Subjects.Lifecycle(events.TokenRefreshed, g.UserID)} {
		_, err := nc.ChanSubscribe(subject, heard)
		require.NoError(t, err)
	}
	require.NoError(t, nc.Flush())
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), g))
	require.NoError(t, nc.Flush())
	var subjects []string
	for len(heard) > 0 {
		subjects = append(subjects, (<-heard).Subject)
	}
	require.Equal(t, []string{r.Subjects.Changed(g.UserID), g.Outbox.Events[0].Subject, g.Outbox.Events[1].Subject}, subjects)

	g = r.Get(w, g.ID)
	w.Settler.Schedule(g, g.Due)
	require.NoError(t, w.Store.Save(t.Context(), g))
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), g))
	require.NoError(t, nc.Flush())
	require.Empty(t, heard, "a schedule changes nothing that callers get")
}

// Workers give out the tokens of a revoked grant as long as they have not heard of it.
func TestAChangeIsToldThoughItsScheduleCannotBeCancelled(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.revoked(w)
	nc, err := nats.Connect(r.Broker.URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	heard, err := nc.SubscribeSync(r.Subjects.Changed(g.UserID))
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	require.NoError(t, r.JS.DeleteStream(t.Context(), r.Subjects.RefreshStream()))
	require.Error(t, w.Dispatcher.Deliver(t.Context(), g))
	_, err = heard.NextMsg(patience)
	require.NoError(t, err)
}

// A role from an earlier release may not tell of changes; the events are what counts.
func TestWithoutPermissionToTellOfChangesAnOutboxIsSent(t *testing.T) {
	r := newRig(t)
	broker := enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) {
		o.Users = []*server.User{{Username: "old", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{r.Subjects.Changed("") + "*"}}}}}
	}})
	broker.Embedded() // or skip
	refused := make(chan error, 16)
	nc, err := nats.Connect(broker.URL(), nats.UserInfo("old", ""), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	cfg := config.Default()
	cfg.NATS.Prefix, cfg.NATS.Partitions = r.Subjects.Prefix, 1
	_, err = streamstest.New(js, cfg, zap.NewNop()).Ensure(t.Context())
	require.NoError(t, err)

	w := r.Worker("a")
	g := r.changed(w, hour)
	d, err := refresher.NewDispatcher(refresher.DispatcherOptions{
		JetStream: js, Store: w.Store, Subjects: r.Subjects, Horizon: day, Now: r.Clock.Now, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	require.NoError(t, d.Deliver(t.Context(), g))
	require.Nil(t, r.Get(w, g.ID).Outbox)
	require.ErrorContains(t, <-refused, "latchkey.changed.")
}
