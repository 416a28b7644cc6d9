package config

import (
	"regexp"
	"strings"

	"github.com/latchkey/latchkey/events/secret"
)

// Tracing sends OpenTelemetry traces to a collector.
type Tracing struct {
	// Where spans go: the address of an OTLP/HTTP receiver, https:// (http:// on the loopback interface
	// only), as https://otel.example.net/v1/traces. Without a path /v1/traces is meant. Empty: no spans are made.
	Endpoint string `yaml:"endpoint"`
	// Headers of every request to it, such as keys: name=value, comma separated.
	Headers secret.Text `yaml:"headers"`
	// Share of the traces begun here that are recorded, 0 to 1. For a trace that comes with a message its sender has decided.
	Sample float64 `yaml:"sample"`
	// Name of the service in the traces.
	ServiceName string `yaml:"service_name"`
}

// HeaderFields returns the headers by name; false when they are malformed.
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
