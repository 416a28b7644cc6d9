package store

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/latchkey/latchkey/events/tracing"
)

// addTrace adds the trace in ctx to the schedule and the events in the outbox, so that
// they belong to it whichever worker sends them.
func (g *Grant) addTrace(ctx context.Context) {
	in := tracing.FromContext(ctx)
	if in == nil || g.Outbox == nil {
		return
	}
	if g.Due != nil && g.Outbox.Schedule && g.Due.Trace == nil {
		g.Due.Trace = in
	}
	for i := range g.Outbox.Events {
		if g.Outbox.Events[i].Trace == nil {
			g.Outbox.Events[i].Trace = in
		}
	}
}

// startSpan begins the span of an operation on a grant.
func startSpan(ctx context.Context, operation string, g *Grant) (context.Context, trace.Span) {
	return tracing.Start(ctx, operation+" grants", trace.SpanKindClient,
		attribute.String("db.system.name", "mongodb"),
		attribute.String("db.collection.name", "grants"),
		attribute.String("db.operation.name", operation),
		attribute.String("latchkey.grant", g.ID),
		attribute.Int64("latchkey.version", g.Version))
}
