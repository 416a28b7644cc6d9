package config

import (
	"regexp"
	"strings"

	"github.com/latchkey/latchkey/events/secret"
)

// Tracing sends OpenTelemetry traces to a collector.
type Tracing struct {
	// Address of an OTLP/HTTP receiver, such as https://otel.example.net/v1/traces or, in a private network,
	// http://otel-collector:4318: traces hold no token and name no user. With headers it must be https:// (or on the
	// loopback interface). Without a path it is /v1/traces. When unset: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, or else
	// OTEL_EXPORTER_OTLP_ENDPOINT. When empty: tracing is off.
	Endpoint string `yaml:"endpoint"`
	// Headers of every request to the receiver, such as API keys: name=value, comma separated. When empty, and the
	// endpoint is that of OpenTelemetry's variables: OTEL_EXPORTER_OTLP_TRACES_HEADERS, or else OTEL_EXPORTER_OTLP_HEADERS.
	Headers secret.Text `yaml:"headers"`
	// Share of the traces started here that are recorded, 0 to 1. If a trace comes with a message, its sender has decided.
	// When unset: OTEL_TRACES_SAMPLER with OTEL_TRACES_SAMPLER_ARG.
	Sample float64 `yaml:"sample"`
	// Service name in the traces. When unset: OTEL_SERVICE_NAME, or else service.name in OTEL_RESOURCE_ATTRIBUTES.
	ServiceName string `yaml:"service_name"`
}

// HeaderFields returns the headers by name, or false if they are malformed.
func (t Tracing) HeaderFields() (map[string]secret.Text, bool) {
	fields := map[string]secret.Text{}
	if t.Headers.Empty() {
		return fields, true
	}
	for _, pair := range strings.Split(t.Headers.Reveal(), ",") {
		name, value, ok := strings.Cut(pair, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || !headerName.MatchString(name) || !headerValue.MatchString(value) {
			return nil, false
		}
		fields[name] = secret.New(value)
	}
	return fields, true
}

var (
	headerName  = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}$") // a token of RFC 9110
	headerValue = regexp.MustCompile(`^[ -~]+$`)
)

const tracesForm = "must be an http:// or https:// address without credentials and query, https:// where headers are sent (http:// with headers on the loopback interface only), or empty"

// sentSafely reports whether spans and headers may be sent to the endpoint. Spans hold
// no secret.
func (t Tracing) sentSafely() bool {
	if rest, plain := strings.CutPrefix(t.Endpoint, "http://"); plain && t.Headers.Empty() {
		return carriesSecretsSafely("https://" + rest) // of the same form
	}
	return carriesSecretsSafely(t.Endpoint)
}

func (c Config) checkTracing(f *faults) {
	t := c.Tracing
	f.unless(t.Endpoint == "" || t.sentSafely(), "tracing.endpoint", tracesForm)
	_, ok := t.HeaderFields()
	f.unless(ok, "tracing.headers", "must be name=value pairs of visible ASCII characters, comma separated")
	f.unless(0 <= t.Sample && t.Sample <= 1, "tracing.sample", "must be from 0 to 1")
	f.unless(visible.MatchString(t.ServiceName), "tracing.service_name", "must be 1 to 256 ASCII characters without spaces")
}
