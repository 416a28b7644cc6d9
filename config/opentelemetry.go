package config

import (
	"cmp"
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/latchkey/latchkey/events/secret"
)

// standard is what the variables of OpenTelemetry say about traces. They are defaults:
// the file and the variables of Latchkey win.
type standard struct {
	tracing Tracing
	headers secret.Text
	// variable that names the endpoint, and the value.
	from, endpoint string
	// The variables with a value that workers can't follow, and what would do.
	protocol, sampler *Fault
}

// readOpenTelemetry reads the variables, of which an empty one counts as unset.
func readOpenTelemetry(variables map[string]string, defaults Tracing) standard {
	s := standard{tracing: defaults}
	first := func(names ...string) (name, value string) {
		for _, name := range names {
			if value := strings.TrimSpace(variables[name]); value != "" {
				return name, value
			}
		}
		return "", ""
	}
	s.tracing.ServiceName = cmp.Or(variables["OTEL_SERVICE_NAME"], resourceName(variables["OTEL_RESOURCE_ATTRIBUTES"]), defaults.ServiceName)
	s.readSampler(variables)
	if _, exporter := first("OTEL_TRACES_EXPORTER"); exporter != "" && exporter != "otlp" || strings.EqualFold(variables["OTEL_SDK_DISABLED"], "true") {
		return s
	}
	const general, ofTraces = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	s.from, s.endpoint = first(ofTraces, general)
	switch {
	case s.from == general: // the base of the addresses of all signals
		s.endpoint = strings.TrimSuffix(s.endpoint, "/") + "/v1/traces"
	case s.from == ofTraces:
		if u, err := url.Parse(s.endpoint); err == nil && u.Path == "" {
			s.endpoint += "/" // as it is, but without a path it is this one
		}
	}
	s.tracing.Endpoint = s.endpoint
	if name, protocol := first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		s.protocol = &Fault{Key: "tracing.endpoint", Variable: name, Problem: "must be http/protobuf, which is what workers speak; or set LATCHKEY_TRACING_ENDPOINT (empty: no traces)"}
	}
	if _, headers := first("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"); s.from != "" {
		if decoded, err := url.PathUnescape(headers); err == nil {
			headers = decoded
		}
		s.headers = secret.New(headers)
	}
	return s
}

func (s *standard) readSampler(variables map[string]string) {
	const name, argument = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
	switch variables[name] {
	case "":
	case "always_on", "parentbased_always_on":
		s.tracing.Sample = 1
	case "always_off", "parentbased_always_off":
		s.tracing.Sample = 0
	case "traceidratio", "parentbased_traceidratio":
		share, err := strconv.ParseFloat(cmp.Or(variables[argument], "1"), 64)
		if err != nil || !(0 <= share && share <= 1) {
			s.refuseSampler(argument, "must be from 0 to 1")
			return
		}
		s.tracing.Sample = share
	default:
		s.refuseSampler(name, "must be always_on, always_off or traceidratio, alone or with parentbased_ before it")
	}
}

// refuseSampler notes a fault that counts only if nothing of Latchkey's sets the share.
func (s *standard) refuseSampler(variable, problem string) {
	s.sampler = &Fault{Key: "tracing.sample", Variable: variable, Problem: problem}
	s.tracing.Sample = math.NaN() // until something does
}

// resourceName returns the service's name in a list of resource attributes.
func resourceName(attributes string) string {
	for _, pair := range strings.Split(attributes, ",") {
		if key, value, ok := strings.Cut(pair, "="); ok && strings.TrimSpace(key) == "service.name" {
			if decoded, err := url.PathUnescape(strings.TrimSpace(value)); err == nil {
				return decoded
			}
		}
	}
	return ""
}

// apply adds faults of the standard's values that are in effect. Its headers may hold
// the key of its own collector: no other gets them.
func (s standard) apply(t *Tracing, fs *faults) {
	used := s.from != "" && t.Endpoint == s.endpoint
	if used && t.Headers.Empty() {
		t.Headers = s.headers
	}
	if used && s.protocol != nil {
		*fs = append(*fs, *s.protocol)
	} else if used && !t.sentSafely() {
		*fs = append(*fs, Fault{Key: "tracing.endpoint", Variable: s.from, Problem: tracesForm})
	}
	if s.sampler != nil && math.IsNaN(t.Sample) {
		t.Sample = Default().Tracing.Sample
		if t.Endpoint != "" {
			*fs = append(*fs, *s.sampler)
		}
	}
}
