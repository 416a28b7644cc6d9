package worker

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/build"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store/envelope"
)

// traces sends the worker's spans.
type traces struct {
	tracer   tracing.Tracer
	provider *sdktrace.TracerProvider // nil: off
	log      *zap.Logger
}

const (
	// exportTimeout bounds one request to the collector.
	exportTimeout = 10 * time.Second
	// tracesGrace bounds how long sending the last spans may delay a stop.
	tracesGrace = 5 * time.Second
)

// startTraces prepares tracing as configured. It does not connect to the collector: a
// worker works without one.
func startTraces(cfg config.Config, log *zap.Logger) (*traces, error) {
	c := cfg.Tracing
	if c.Endpoint == "" {
		return &traces{}, nil
	}
	endpoint, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("tracing.endpoint is not an address")
	}
	if endpoint.Path == "" {
		endpoint.Path = "/v1/traces"
	}
	fields, _ := c.HeaderFields() // checked with the configuration
	headers := map[string]string{}
	for name, value := range fields {
		headers[name] = value.Reveal()
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if transport.TLSClientConfig, err = collectorTLS(os.Getenv); err != nil {
		return nil, fmt.Errorf("preparing traces: %w", err)
	}
	// It reads OpenTelemetry's variables too, and would write those that it can't read to
	// standard error, keys of a collector among them. Here config has read them.
	otel.SetLogger(logr.Discard())
	exporter, err := otlptracehttp.New(context.Background(),
		otlptracehttp.WithEndpointURL(endpoint.String()),
		otlptracehttp.WithHeaders(headers),
		otlptracehttp.WithHTTPClient(&http.Client{
			Transport: silenced{transport},
			Timeout:   exportTimeout,
			// A redirect would send the headers elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}))
	if err != nil {
		return nil, fmt.Errorf("preparing traces: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(loggingExporter{exporter, log}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.Sample))),
		sdktrace.WithResource(describe(cfg, log)))
	return &traces{tracing.NewTracer(provider), provider, log}, nil
}

// describe says whose spans they are: with OTEL_RESOURCE_ATTRIBUTES, of which a malformed
// part keeps no worker from working.
func describe(cfg config.Config, log *zap.Logger) *resource.Resource {
	r, err := resource.New(context.Background(), resource.WithFromEnv(), resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", cfg.Tracing.ServiceName),
		attribute.String("service.version", build.Version()),
		attribute.String("service.instance.id", cfg.Worker.ID)))
	if err != nil {
		log.Warn("OTEL_RESOURCE_ATTRIBUTES is not as it must be; traces have what could be read of it")
	}
	return r
}

// stop sends the last spans.
func (t *traces) stop() {
	if t.provider == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), tracesGrace)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.Warn("the last traces could not be sent", zap.Error(err))
	}
}

// loggingExporter logs what OpenTelemetry would write to standard error.
type loggingExporter struct {
	sdktrace.SpanExporter
	log *zap.Logger
}

// ExportSpans implements sdktrace.SpanExporter.
func (e loggingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.log.Warn("traces could not be sent and are dropped", zap.Error(err))
	}
	return nil
}

// silenced keeps the bodies of a collector's answers out of errors, and so out of the
// log.
type silenced struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (s silenced) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := s.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	_ = res.Body.Close()
	res.Body = http.NoBody
	res.Status = fmt.Sprintf("%d %s", res.StatusCode, http.StatusText(res.StatusCode))
	return res, nil
}

// tracedKMS records a span for every call to KMS.
type tracedKMS struct{ envelope.KMS }

// GenerateDataKey implements envelope.KMS.
func (k tracedKMS) GenerateDataKey(ctx context.Context, in *kms.GenerateDataKeyInput, opts ...func(*kms.Options)) (*kms.GenerateDataKeyOutput, error) {
	ctx, span := tracing.Start(ctx, "kms GenerateDataKey", trace.SpanKindClient)
	out, err := k.KMS.GenerateDataKey(ctx, in, opts...)
	tracing.End(span, err)
	return out, err
}

// Decrypt implements envelope.KMS.
func (k tracedKMS) Decrypt(ctx context.Context, in *kms.DecryptInput, opts ...func(*kms.Options)) (*kms.DecryptOutput, error) {
	ctx, span := tracing.Start(ctx, "kms Decrypt", trace.SpanKindClient)
	out, err := k.KMS.Decrypt(ctx, in, opts...)
	tracing.End(span, err)
	return out, err
}
