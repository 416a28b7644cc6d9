package tracing

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Carried is a trace context on its way from one process to another: the
// headers traceparent and tracestate of W3C Trace Context. nil: none.
type Carried map[string]string

const (
	parentHeader = "traceparent"
	stateHeader  = "tracestate"
	// maxState bounds what is passed on of other vendors' state; the standard
	// asks for no less.
	maxState = 512
)

// Carry returns the trace context in ctx.
func Carry(ctx context.Context) Carried {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	c := Carried{}
	propagation.TraceContext{}.Inject(ctx, propagation.MapCarrier(c))
	if len(c[stateHeader]) > maxState {
		delete(c, stateHeader)
	}
	return c
}

// FromHeader returns the trace context in a message's headers, whatever the
// case of their names. What came twice is no context.
func FromHeader(header map[string][]string) Carried {
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
	c := Carried{parentHeader: parents[0]}
	if state := strings.Join(states, ","); state != "" && len(state) <= maxState {
		c[stateHeader] = state
	}
	return c
}

// Into puts the context into a message's headers.
func (c Carried) Into(header map[string][]string) {
	for name, value := range c {
		header[name] = []string{value}
	}
}

// Continue returns ctx within the trace that is carried, or ctx where nothing
// well-formed is.
func (c Carried) Continue(ctx context.Context) context.Context {
	if len(c) == 0 {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier(c))
}

// Links returns a link to the span that is carried, for work that it set off
// and that is a trace of its own.
func (c Carried) Links() trace.SpanStartOption {
	span := trace.SpanContextFromContext(c.Continue(context.Background()))
	if !span.IsValid() {
		return trace.WithLinks()
	}
	return trace.WithLinks(trace.Link{SpanContext: span})
}
