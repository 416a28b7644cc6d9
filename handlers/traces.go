package handlers

import (
	"context"

	"github.com/nats-io/nats.go/micro"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
)

// codeOK stands for an answer with tokens, where others have a code.
const codeOK = "ok"

// startSpan begins the span of one delivery of a message. end takes what became
// of it.
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
	ctx, span := r.Tracer.Start(ctx, "process "+route.Name, trace.SpanKindConsumer, opts...)
	return ctx, func(outcome string, err error) {
		span.SetAttributes(tracing.Outcome(outcome))
		tracing.End(span, err)
	}
}

// startSpan begins the span of a token request. Its subject names a user, and
// is not told.
func (t *TokenService) startSpan(ctx context.Context, req micro.Request, name, subject string) (_ context.Context, end func(code string)) {
	ctx = tracing.FromHeader(req.Headers()).Continue(ctx)
	if !t.Tracer.On() {
		return ctx, func(string) {}
	}
	ctx, span := t.Tracer.Start(ctx, name, trace.SpanKindServer,
		trace.WithAttributes(tracing.Messaging("process", subject)...))
	return ctx, func(code string) {
		span.SetAttributes(tracing.Outcome(code))
		if code == events.CodeBusy || code == events.CodeInternal {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}
