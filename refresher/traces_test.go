package refresher_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// parents are the traceparent headers that two changes come with.
var parents = []string{
	"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}

func traced(t *testing.T, parent string) context.Context {
	return tracing.TraceContext{"traceparent": parent}.Continue(t.Context())
}

// What a crash kept from being sent is sent by another worker in the traces
// that it came about in; and what was too far ahead to be scheduled, when its
// time comes nearer.
func TestReconciliationTellsInTheTraceOfTheChange(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Access.ExpiresAt = nil })
	w.Settler.Schedule(g, &store.Due{At: r.Clock.Now().Add(config.Default().Refresh.Horizon + hour), Action: store.Refresh})
	require.NoError(t, w.Settler.Announce(g, events.TokenStored, ""))
	require.NoError(t, w.Store.Save(traced(t, parents[0]), g))
	g.Version++ // a version has one event
	require.NoError(t, w.Settler.Announce(g, events.TokenRefreshed, ""))
	require.NoError(t, w.Store.Save(traced(t, parents[1]), g))

	other := r.Worker("b")
	r.Clock.Advance(slack + time.Second)
	require.NoError(t, other.Reconciler.Pass(t.Context()))
	sent := r.Messages(r.Subjects.LifecycleStream(), ">")
	require.Len(t, sent, 2)
	for i, m := range sent {
		require.Equal(t, parents[i], m.Header.Get("traceparent"))
	}
	require.Nil(t, r.schedule(g.ID))
	r.Clock.Advance(2 * hour)
	require.NoError(t, other.Reconciler.Pass(t.Context()))
	require.Equal(t, parents[0], r.schedule(g.ID).Header.Get("traceparent"), "the change that set the due time")

	// The next action is another's decision, and so is what tells of it.
	w.Settler.Schedule(g, &store.Due{At: r.Clock.Now(), Action: store.Refresh})
	require.NoError(t, w.Store.Save(traced(t, parents[1]), g))
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), g))
	require.Equal(t, parents[1], r.schedule(g.ID).Header.Get("traceparent"))
}

// A rescued answer, and a refresh that is put off, go on in their traces.
func TestTracesGoOnThroughDetours(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	exported := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exported))
	w.Dispatcher.SetTracer(tracing.NewTracer(provider))
	ctx, span := provider.Tracer("test").Start(t.Context(), "process")
	r.FailWrites(true)
	require.NoError(t, w.HandleDue(ctx, due(g)))
	r.FailWrites(false)
	span.End()
	var names []string
	for _, s := range exported.GetSpans() {
		require.Equal(t, span.SpanContext().TraceID(), s.SpanContext.TraceID())
		names = append(names, s.Name)
		if s.Name == "replace grants" {
			require.Equal(t, "Error", s.Status.Code.String())
			require.Empty(t, s.Status.Description)
			require.Empty(t, s.Events, "no text of an error")
		}
	}
	require.Equal(t, []string{"findAndModify grants", "POST /api/v1/token/refresh", "replace grants", "refresh", "process"}, names)
	entries := r.Messages(r.Subjects.RecoveryStream(), ">")
	require.Len(t, entries, 1)
	require.Contains(t, entries[0].Header.Get("traceparent"), span.SpanContext().TraceID().String())

	require.NoError(t, w.Dispatcher.Postpone(traced(t, parents[1]), due(g), r.Clock.Now().Add(hour)))
	require.Contains(t, r.schedule(g.ID).Header.Get("traceparent"), "4bf92f3577b34da6a3ce929d0e0e4736")
}

// Spans tell how Mesh answered, and nothing that it or we wrote.
func TestSpansOfCallsToMesh(t *testing.T) {
	exported := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exported))
	ctx, span := provider.Tracer("test").Start(t.Context(), "process")
	defer span.End()
	m := must(refresher.NewMesh(refresher.MeshOptions{URL: "http://127.0.0.1:1", Timeout: patience, Now: time.Now}))
	_, err := m.Refresh(ctx, refresher.RefreshRequest{BrokerType: "b", RefreshToken: text("s3cret")})
	require.Error(t, err)
	require.Error(t, m.Remove(ctx, text("s3cret"), "b"))
	got := exported.GetSpans().Snapshots()
	require.Len(t, got, 2)
	require.Equal(t, "POST /api/v1/token/refresh", got[0].Name())
	require.Equal(t, "DELETE /api/v1/account", got[1].Name())
	for _, s := range got {
		require.Equal(t, "Error", s.Status().Code.String())
		for _, a := range s.Attributes() {
			require.NotContains(t, a.Value.String(), "s3cret")
		}
	}
}
