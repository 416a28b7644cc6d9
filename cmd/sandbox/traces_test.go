package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheSandboxShowsTraces(t *testing.T) {
	var told strings.Builder
	variables, stop, err := startTraces(0, []string{"LATCHKEY_LOG_LEVEL=debug", "OTEL_SERVICE_NAME=mine"}, &told)
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
	stop()
	_, err = http.Get(address) //nolint:bodyclose // there is none
	require.Error(t, err)

	for _, elsewhere := range []string{"LATCHKEY_TRACING_ENDPOINT=", "OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318", "OTEL_SDK_DISABLED=true"} {
		variables, stop, err := startTraces(0, []string{elsewhere}, &told)
		require.NoError(t, err)
		require.Empty(t, variables, elsewhere)
		stop()
	}

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, _, err = startTraces(taken.Addr().(*net.TCPAddr).Port, nil, &told)
	require.ErrorContains(t, err, "--traces-port")
}
