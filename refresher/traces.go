package refresher

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
)

// publish sends a message in the trace of its cause, also when reconciliation does it
// after a crash. name is the subject without users.
func (d *Dispatcher) publish(ctx context.Context, msg *nats.Msg, name string, in tracing.TraceContext, about []attribute.KeyValue, opts ...jetstream.PublishOpt) (ack jetstream.PubAckFuture, err error) {
	ctx, span := d.options.Tracer.Start(in.Continue(ctx), "send "+name, trace.SpanKindProducer,
		trace.WithAttributes(tracing.Messaging("send", name)...), trace.WithAttributes(about...))
	defer func() { tracing.End(span, err) }()
	tracing.FromContext(ctx).Inject(msg.Header)
	return d.options.JetStream.PublishMsgAsync(msg, opts...)
}

func kindOf(subject string) string {
	for _, kind := range events.LifecycleKinds {
		if strings.Contains("."+subject, "."+kind+".") {
			return kind
		}
	}
	return "token"
}

// endStep ends the span of a refresh. One that was out of date is no failure.
func endStep(span trace.Span, err error) {
	if errors.Is(err, store.ErrStale) || errors.Is(err, store.ErrNotFound) {
		span.SetAttributes(tracing.Outcome("stale"))
		err = nil
	}
	tracing.End(span, err)
}

// startSpan begins the span of a call to Mesh, which gets no headers of the trace.
func (m *Mesh) startSpan(ctx context.Context, method, path string) (context.Context, trace.Span) {
	address := ""
	if u, err := url.Parse(m.options.URL); err == nil {
		address = u.Hostname()
	}
	return tracing.Start(ctx, method+" "+path, trace.SpanKindClient,
		attribute.String("http.request.method", method),
		attribute.String("url.template", path),
		attribute.String("server.address", address))
}

func endRefresh(span trace.Span, err error) {
	outcome := refreshed
	if err != nil {
		f := AsFailure(err)
		outcome = string(f.Class)
		span.SetAttributes(attribute.Bool("latchkey.ambiguous", f.Ambiguous))
	}
	span.SetAttributes(tracing.Outcome(outcome))
	tracing.End(span, err)
}
