package worker_test

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// otlpReceiver is what traces are sent to: it takes OTLP over HTTP, as a
// collector does.
type otlpReceiver struct {
	*httptest.Server
	t      *testing.T
	mu     sync.Mutex
	raw    bytes.Buffer
	header http.Header
	paths  []string
	got    []*tracepb.Span
	names  map[string]bool // of services
}

func receiveTraces(t *testing.T) *otlpReceiver {
	t.Helper()
	r := &otlpReceiver{t: t, names: map[string]bool{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

// ServeHTTP implements http.Handler.
func (r *otlpReceiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, err := io.ReadAll(req.Body)
	var in collector.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(body, &in) != nil {
		r.t.Errorf("what arrived is not OTLP: %v", err)
		return
	}
	r.raw.Write(body)
	r.raw.WriteString(prototext.Format(&in))
	r.header = req.Header
	r.paths = append(r.paths, req.URL.Path)
	for _, resource := range in.ResourceSpans {
		for _, a := range resource.Resource.Attributes {
			if a.Key == "service.name" {
				r.names[a.Value.GetStringValue()] = true
			}
		}
		for _, s := range resource.ScopeSpans {
			r.got = append(r.got, s.Spans...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// text is everything that arrived, as it came and readable.
func (r *otlpReceiver) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.raw.String()
}

// seen is a span as it arrived.
type seen struct{ *tracepb.Span }

func (s seen) trace() string  { return hex.EncodeToString(s.TraceId) }
func (s seen) id() string     { return hex.EncodeToString(s.SpanId) }
func (s seen) parent() string { return hex.EncodeToString(s.ParentSpanId) }

// attribute returns an attribute as text, "" without one.
func (s seen) attribute(key string) string {
	for _, a := range s.Attributes {
		if a.Key == key && a.Value.GetStringValue() != "" {
			return a.Value.GetStringValue()
		} else if a.Key == key {
			return a.Value.String()
		}
	}
	return ""
}

// links returns the traces to which a span links.
func (s seen) links() []string {
	var out []string
	for _, l := range s.Links {
		out = append(out, hex.EncodeToString(l.TraceId))
	}
	return out
}

// spans returns the spans of a trace ("" for any) with a name ("" for any).
func (r *otlpReceiver) spans(trace, name string) []seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []seen
	for _, s := range r.got {
		if span := (seen{s}); (trace == "" || span.trace() == trace) && (name == "" || s.Name == name) {
			out = append(out, span)
		}
	}
	return out
}

// span returns the one span of a trace with a name.
func (r *otlpReceiver) span(trace, name string) seen {
	r.t.Helper()
	found := r.spans(trace, name)
	require.Len(r.t, found, 1, "%s in %s", name, trace)
	return found[0]
}
