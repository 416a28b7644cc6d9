package tracing

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// TraceContext is a trace context between processes: the headers traceparent and tracestate of
// W3C Trace Context. Nil: none.
type TraceContext map[string]string

const (
	parentHeader = "traceparent"
	stateHeader  = "tracestate"
	// maxState limits the tracestate; the standard requires at least this much.
	maxState = 512
)

// FromContext returns the trace context in ctx.
func FromContext(ctx context.Context) TraceContext {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	c := TraceContext{}
	propagation.TraceContext{}.Inject(ctx, propagation.MapCarrier(c))
	if len(c[stateHeader]) > maxState {
		delete(c, stateHeader)
	}
	return c
}

// FromHeader returns the trace context in a message's headers, whose names may be in any
// case. With two traceparent headers there is none.
func FromHeader(header map[string][]string) TraceContext {
	var parents, states []string
	for name, values := range header {
		switch {
		case strings.EqualFold(name, parentHeader):
			parents = append(parents, values...)
		case strings.EqualFold(name, stateHeader):
			states = append(states, values...)
		}
	}
	if len(parents) != 1 {
		return nil
	}
	c := TraceContext{parentHeader: parents[0]}
	if state := strings.Join(states, ","); state != "" && len(state) <= maxState {
		c[stateHeader] = state
	}
	return c
}

// Inject sets the headers of a message.
func (c TraceContext) Inject(header map[string][]string) {
	for name, value := range c {
		header[name] = []string{value}
	}
}

// Continue returns ctx within the trace, or ctx if c is empty or malformed.
func (c TraceContext) Continue(ctx context.Context) context.Context {
	if len(c) == 0 {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier(c))
}

// Links returns a link to the span, for a trace that it caused.
func (c TraceContext) Links() trace.SpanStartOption {
	span := trace.SpanContextFromContext(c.Continue(context.Background()))
	if !span.IsValid() {
		return trace.WithLinks()
	}
	return trace.WithLinks(trace.Link{SpanContext: span})
}
