package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/cmd/sandbox/traceview"
)

// startTraces collects the worker's traces and shows them on a page until the stack stops.
// It returns what has the worker send them there; nothing, if its variables send them
// elsewhere or nowhere.
func startTraces(s *stack.Stack, port int, variables []string, stdout io.Writer) (more []string, err error) {
	if slices.ContainsFunc(variables, sendsElsewhere) {
		return nil, nil
	}
	address, err := s.Serve(port, &traceview.View{})
	if err != nil {
		return nil, fmt.Errorf("serving the page of traces: %w", err)
	}
	fmt.Fprintf(stdout, "  traces    %s      what the worker does, as spans; other programs can send theirs here too (OTLP over HTTP)\n", address)
	return []string{"LATCHKEY_TRACING_ENDPOINT=" + address}, nil
}

// sendsElsewhere reports whether a variable says where traces go, as the worker reads it: an
// empty one of OpenTelemetry counts as unset.
func sendsElsewhere(variable string) bool {
	name, value, _ := strings.Cut(variable, "=")
	value = strings.TrimSpace(value)
	switch name {
	case "LATCHKEY_TRACING_ENDPOINT": // empty: no traces
		return true
	case "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT":
		return value != ""
	case "OTEL_TRACES_EXPORTER":
		return value != "" && value != "otlp"
	case "OTEL_SDK_DISABLED":
		return strings.EqualFold(value, "true")
	}
	return false
}
