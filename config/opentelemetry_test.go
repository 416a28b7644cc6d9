package config_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/secret"
)

func TestACollectorInAPrivateNetwork(t *testing.T) {
	for _, endpoint := range []string{"http://otel-collector:4318", "http://10.0.0.7:4318/v1/traces", "https://otel.example"} {
		require.Equal(t, endpoint, load(t, "", "LATCHKEY_TRACING_ENDPOINT="+endpoint).Tracing.Endpoint)
	}
	// A key does not cross a network in the clear.
	key := "LATCHKEY_TRACING_HEADERS=x-key=a"
	load(t, "", "LATCHKEY_TRACING_ENDPOINT=https://otel.example", key)
	load(t, "", "LATCHKEY_TRACING_ENDPOINT=http://127.0.0.1:4318", key)
	_, err := config.Load("", with("LATCHKEY_TRACING_ENDPOINT=http://otel-collector:4318", key))
	require.ErrorContains(t, err, "tracing.endpoint (LATCHKEY_TRACING_ENDPOINT)")
}

func TestVariablesOfOpenTelemetryAreDefaults(t *testing.T) {
	def := config.Default().Tracing
	key := secret.New("x-key=a b")
	for name, c := range map[string]struct {
		file    string
		environ []string
		want    config.Tracing
	}{
		"none":                        {"", nil, def},
		"the base of all signals":     {"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318/"}, config.Tracing{Endpoint: "http://c:4318/v1/traces", Sample: 1, ServiceName: "latchkey"}},
		"a base with a path":          {"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=https://c/otlp"}, config.Tracing{Endpoint: "https://c/otlp/v1/traces", Sample: 1, ServiceName: "latchkey"}},
		"that of traces wins":         {"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://t:4318/x"}, config.Tracing{Endpoint: "http://t:4318/x", Sample: 1, ServiceName: "latchkey"}},
		"that of traces is not added": {"", []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://t:4318"}, config.Tracing{Endpoint: "http://t:4318/", Sample: 1, ServiceName: "latchkey"}},
		"an empty one is unset":       {"", []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=", "OTEL_SERVICE_NAME=", "OTEL_TRACES_SAMPLER="}, def},
		"headers are decoded":         {"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=https://c", "OTEL_EXPORTER_OTLP_HEADERS=x-key=a%20b"}, config.Tracing{Endpoint: "https://c/v1/traces", Headers: key, Sample: 1, ServiceName: "latchkey"}},
		"headers of traces win":       {"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=https://c", "OTEL_EXPORTER_OTLP_HEADERS=no=1", "OTEL_EXPORTER_OTLP_TRACES_HEADERS=x-key=a b"}, config.Tracing{Endpoint: "https://c/v1/traces", Headers: key, Sample: 1, ServiceName: "latchkey"}},
		"headers are for their own":   {"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=https://c", "OTEL_EXPORTER_OTLP_HEADERS=x-key=a", "LATCHKEY_TRACING_ENDPOINT=https://mine"}, config.Tracing{Endpoint: "https://mine", Sample: 1, ServiceName: "latchkey"}},
		"ours win": {
			"tracing: {sample: 0.25}",
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=https://c", "OTEL_EXPORTER_OTLP_HEADERS=no=1", "OTEL_SERVICE_NAME=a", "OTEL_TRACES_SAMPLER=always_off", "LATCHKEY_TRACING_HEADERS=x-key=a b", "LATCHKEY_TRACING_SERVICE_NAME=mine"},
			config.Tracing{Endpoint: "https://c/v1/traces", Headers: key, Sample: 0.25, ServiceName: "mine"},
		},
		"ours turn it off":                 {"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "LATCHKEY_TRACING_ENDPOINT="}, def},
		"the SDK is disabled":              {"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c", "OTEL_SDK_DISABLED=True"}, def},
		"another exporter":                 {"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c", "OTEL_TRACES_EXPORTER=none"}, def},
		"the exporter's name":              {"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c", "OTEL_TRACES_EXPORTER=otlp"}, config.Tracing{Endpoint: "http://c/v1/traces", Sample: 1, ServiceName: "latchkey"}},
		"protocol of traces":               {"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf"}, config.Tracing{Endpoint: "http://c/v1/traces", Sample: 1, ServiceName: "latchkey"}},
		"a share":                          {"", []string{"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.1"}, config.Tracing{Sample: 0.1, ServiceName: "latchkey"}},
		"a share without a number":         {"", []string{"OTEL_TRACES_SAMPLER=traceidratio"}, def},
		"all":                              {"", []string{"OTEL_TRACES_SAMPLER=always_on"}, def},
		"none of our own":                  {"", []string{"OTEL_TRACES_SAMPLER=parentbased_always_off"}, config.Tracing{ServiceName: "latchkey"}},
		"a name":                           {"", []string{"OTEL_SERVICE_NAME=a", "OTEL_RESOURCE_ATTRIBUTES=service.name=b"}, config.Tracing{Sample: 1, ServiceName: "a"}},
		"a name among attributes":          {"", []string{"OTEL_RESOURCE_ATTRIBUTES=team=x,service.name=a%2Fb"}, config.Tracing{Sample: 1, ServiceName: "a/b"}},
		"attributes without name":          {"", []string{"OTEL_RESOURCE_ATTRIBUTES=team=x,service.name=%zz,odd"}, def},
		"ours win over an unknown sampler": {"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=https://c", "OTEL_TRACES_SAMPLER=xray", "LATCHKEY_TRACING_SAMPLE=1"}, config.Tracing{Endpoint: "https://c/v1/traces", Sample: 1, ServiceName: "latchkey"}},
		"a sampler without traces":         {"", []string{"OTEL_TRACES_SAMPLER=xray"}, def},
	} {
		require.Equal(t, c.want, load(t, c.file, c.environ...).Tracing, name)
	}
}

func TestFaultsOfOpenTelemetrysVariablesNameThem(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318"
	for variable, environ := range map[string][]string{
		"OTEL_EXPORTER_OTLP_PROTOCOL":        {endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"},
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": {endpoint, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json"},
		"OTEL_EXPORTER_OTLP_ENDPOINT":        {endpoint, "OTEL_EXPORTER_OTLP_HEADERS=x-key=a"},
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=c:4318"},
		"OTEL_TRACES_SAMPLER":                {endpoint, "OTEL_TRACES_SAMPLER=xray"},
		"OTEL_TRACES_SAMPLER_ARG":            {endpoint, "OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=2"},
	} {
		_, err := config.Load("", with(environ...))
		faults, ok := errors.AsType[*config.Error](err)
		require.True(t, ok, "%s: %v", variable, err)
		require.Len(t, faults.Faults, 1, variable)
		require.Equal(t, variable, faults.Faults[0].Variable)
	}
	for _, malformed := range []string{"OTEL_EXPORTER_OTLP_HEADERS=%zz", "OTEL_EXPORTER_OTLP_HEADERS=alone"} {
		_, err := config.Load("", with("OTEL_EXPORTER_OTLP_ENDPOINT=https://c", malformed))
		require.ErrorContains(t, err, "tracing.headers")
	}
}
