package tracing_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/latchkey/latchkey/events/tracing"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestHeadersAreReadWhateverTheirCaseAndWrittenAgain(t *testing.T) {
	for _, name := range []string{"traceparent", "Traceparent", "TRACEPARENT"} {
		in := tracing.FromHeader(map[string][]string{name: {parent}, "Tracestate": {"a=1", "b=2"}, "other": {"x"}})
		out := map[string][]string{"kept": {"y"}}
		tracing.FromContext(in.Continue(t.Context())).Inject(out)
		require.Equal(t, map[string][]string{"traceparent": {parent}, "tracestate": {"a=1,b=2"}, "kept": {"y"}}, out)
	}
}

func TestWhatIsMalformedIsNoContext(t *testing.T) {
	for _, values := range [][]string{
		nil,
		{""},
		{"x"},
		{parent, parent},
		{parent[:len(parent)-1]},
		{strings.ToUpper(parent)},
		{"00-00000000000000000000000000000000-b7ad6b7169203331-01"},
		{"ff" + parent[2:]},
		{strings.Repeat("0", 1<<20)},
	} {
		in := tracing.FromHeader(map[string][]string{"traceparent": values})
		require.False(t, trace.SpanContextFromContext(in.Continue(t.Context())).IsValid(), values)
		require.Nil(t, tracing.FromContext(in.Continue(t.Context())))
		config := trace.NewSpanStartConfig(in.Links())
		require.Empty(t, config.Links())
	}
	tracing.TraceContext(nil).Inject(nil) // nothing to put anywhere
}

func TestLargeStateIsNotPassedOn(t *testing.T) {
	state := "a=" + strings.Repeat("x", 200)
	in := tracing.FromHeader(map[string][]string{"traceparent": {parent}, "tracestate": {state, "b" + state, "c" + state}})
	require.Equal(t, tracing.TraceContext{"traceparent": parent}, tracing.FromContext(in.Continue(t.Context())))
}

func FuzzFromHeader(f *testing.F) {
	f.Add("traceparent", parent, "tracestate", "a=1")
	f.Add("Traceparent", parent[:20], "traceparent", parent)
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		in := tracing.FromHeader(map[string][]string{name1: {value1}, name2: {value2}})
		out := tracing.FromContext(in.Continue(t.Context()))
		if out == nil {
			return
		}
		require.Len(t, out["traceparent"], len(parent))
		require.LessOrEqual(t, len(out["tracestate"]), 512)
		again := tracing.FromContext(out.Continue(t.Context()))
		require.Equal(t, out, again, "what is passed on is read alike")
	})
}
