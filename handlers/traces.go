package handlers

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"github.com/latchkey/latchkey/events/tracing"
)

// startSpan starts the span of one delivery of a message. end takes its outcome.
func (r *Router) startSpan(ctx context.Context, route Route, d *delivery) (_ context.Context, end func(outcome string, err error)) {
	opts := []trace.SpanStartOption{
		trace.WithAttributes(tracing.Messaging("process", route.Subject)...),
		trace.WithAttributes(tracing.Attempt(d.Attempt)),
	}
	if route.Delayed {
		opts = append(opts, d.Trace.Links())
	} else {
		ctx = d.Trace.Continue(ctx)
	}
	ctx, span := r.tracer.Start(ctx, "process "+route.Name, trace.SpanKindConsumer, opts...)
	return ctx, func(outcome string, err error) {
		span.SetAttributes(tracing.Outcome(outcome))
		tracing.End(span, err)
	}
}
