package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/stack"
)

func TestTheSandboxShowsTraces(t *testing.T) {
	var told strings.Builder
	s := &stack.Stack{}
	variables, err := startTraces(s, 0, []string{
		"LATCHKEY_LOG_LEVEL=debug", "OTEL_SERVICE_NAME=mine", "OTEL_EXPORTER_OTLP_ENDPOINT=", "OTEL_SDK_DISABLED=false", "OTEL_TRACES_EXPORTER=otlp",
	}, &told)
	require.NoError(t, err)
	require.Len(t, variables, 1)
	address, found := strings.CutPrefix(variables[0], "LATCHKEY_TRACING_ENDPOINT=")
	require.True(t, found)
	require.Contains(t, told.String(), address)
	res, err := http.Get(address)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Contains(t, string(body), "<h1>Traces</h1>")
	s.Stop()
	_, err = http.Get(address) //nolint:bodyclose // there is none
	require.Error(t, err)

	for _, elsewhere := range []string{"LATCHKEY_TRACING_ENDPOINT=", "OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c", "OTEL_TRACES_EXPORTER=none", "OTEL_SDK_DISABLED=true", "OTEL_SDK_DISABLED=True"} {
		variables, err := startTraces(s, 0, []string{elsewhere}, &told)
		require.NoError(t, err)
		require.Empty(t, variables, elsewhere)
	}
}
