package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/traceview"
)

// startTraces collects the worker's traces and shows them on a page, and returns what has
// the worker send them there. Where its variables say where they go, that is not here.
func startTraces(port int, variables []string, stdout io.Writer) (more []string, stop func(), err error) {
	elsewhere := func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{"LATCHKEY_TRACING_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"}, name)
	}
	if slices.ContainsFunc(variables, elsewhere) {
		return nil, func() {}, nil
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, nil, fmt.Errorf("serving the page of traces (--traces-port sets another port, 0 any): %w", err)
	}
	server := &http.Server{Handler: &traceview.View{}, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // until it is closed
	}()
	address := "http://" + listener.Addr().String()
	fmt.Fprintf(stdout, "  traces    %s      what the worker does, as spans; other programs can send theirs here too (OTLP over HTTP)\n", address)
	return []string{"LATCHKEY_TRACING_ENDPOINT=" + address}, func() { _ = server.Close(); <-ended }, nil
}
