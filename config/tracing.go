package config

import (
	"regexp"
	"strings"

	"github.com/latchkey/latchkey/events/secret"
)

// Tracing sends OpenTelemetry traces to a collector.
type Tracing struct {
	// Address of an OTLP/HTTP receiver, https:// (http:// on the loopback interface only), such as
	// https://otel.example.net/v1/traces. Without a path it is /v1/traces. When empty: tracing is off.
	Endpoint string `yaml:"endpoint"`
	// Headers of every request to the receiver, such as API keys: name=value, comma separated.
	Headers secret.Text `yaml:"headers"`
	// Share of the traces started here that are recorded, 0 to 1. If a trace comes with a message, its sender has decided.
	Sample float64 `yaml:"sample"`
	// Service name in the traces.
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

func (c Config) checkTracing(f *faults) {
	t := c.Tracing
	f.unless(t.Endpoint == "" || carriesSecretsSafely(t.Endpoint), "tracing.endpoint", secureForm+", or empty")
	_, ok := t.HeaderFields()
	f.unless(ok, "tracing.headers", "must be name=value pairs of visible ASCII characters, comma separated")
	f.unless(0 <= t.Sample && t.Sample <= 1, "tracing.sample", "must be from 0 to 1")
	f.unless(visible.MatchString(t.ServiceName), "tracing.service_name", "must be 1 to 256 ASCII characters without spaces")
}
