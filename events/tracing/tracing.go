// Package tracing creates OpenTelemetry spans. The operator of the tracing backend may
// see grants, broker types, versions and outcomes, but never a user, an account, a token
// or the text of an error.
package tracing

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// scope is the name of the instrumentation.
const scope = "github.com/latchkey/latchkey"

// Tracer starts spans for incoming work. The zero value starts none.
type Tracer struct{ tracer trace.Tracer }

func NewTracer(p trace.TracerProvider) Tracer { return Tracer{p.Tracer(scope)} }

// Start starts a span in the trace of ctx, or in a new trace.
func (t Tracer) Start(ctx context.Context, name string, kind trace.SpanKind, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	if t.tracer == nil {
		return ctx, trace.SpanFromContext(ctx)
	}
	return t.tracer.Start(ctx, name, append(opts, trace.WithSpanKind(kind))...)
}

// Enabled reports whether the tracer starts spans.
func (t Tracer) Enabled() bool { return t.tracer != nil }

// Start starts a child of the span in ctx, if that is recorded.
func Start(ctx context.Context, name string, kind trace.SpanKind, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, parent
	}
	return parent.TracerProvider().Tracer(scope).Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attributes...))
}

// Set adds attributes to the span in ctx.
func Set(ctx context.Context, attributes ...attribute.KeyValue) {
	trace.SpanFromContext(ctx).SetAttributes(attributes...)
}

// End ends a span. If there is an error it marks the span as failed, with only the type
// of the innermost error.
func End(span trace.Span, err error) {
	if err != nil && span.IsRecording() {
		for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
			err = inner
		}
		span.SetStatus(codes.Error, "")
		span.SetAttributes(attribute.String("error.type", fmt.Sprintf("%T", err)))
	}
	span.End()
}

// Log returns a logger that adds the ids of the trace and span in ctx, if there are any.
func Log(ctx context.Context, log *zap.Logger) *zap.Logger {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return log
	}
	return log.With(zap.Stringer("trace_id", span.TraceID()), zap.Stringer("span_id", span.SpanID()))
}
