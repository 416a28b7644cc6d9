// Package traceview is a collector for OpenTelemetry traces with a page that shows them:
// what a worker sends can be looked at without installing anything. It keeps the latest
// traces in memory.
package traceview

import (
	"cmp"
	"compress/gzip"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Port is where senders of traces expect a collector (OTLP over HTTP).
const Port = 4318

// What is kept: whoever sends more pushes out what is oldest.
const (
	maxTraces = 500
	maxSpans  = 1000 // of a trace
	maxBody   = 8 << 20
)

// View is the collector and its page. The zero value is ready.
type View struct {
	mu     sync.Mutex
	traces map[string]*trace
	order  []string // of arrival, oldest first
}

type trace struct {
	spans map[string]*span
	// left counts spans that found no room.
	left int
}

type span struct {
	*otlp.Span
	service string
}

//go:embed page.html
var page embed.FS

var pages = template.Must(template.ParseFS(page, "page.html"))

// ServeHTTP implements http.Handler.
func (v *View) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	id, isTrace := strings.CutPrefix(r.URL.Path, "/traces/")
	switch {
	case r.URL.Path == "/v1/traces" && r.Method == http.MethodPost:
		v.receive(w, r)
	case r.Method != http.MethodGet:
		http.Error(w, "traces are sent to /v1/traces with POST", http.StatusMethodNotAllowed)
	case r.URL.Path == "/":
		show(w, "list", v.list())
	case isTrace:
		if t := v.trace(id); t != nil {
			show(w, "trace", t)
			return
		}
		http.Error(w, "this trace did not arrive, or is not kept any more", http.StatusNotFound)
	default:
		http.NotFound(w, r)
	}
}

func show(w http.ResponseWriter, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = pages.ExecuteTemplate(w, name, data) // whoever asked has gone
}

// receive takes what exporters of OTLP send with http/protobuf.
func (v *View) receive(w http.ResponseWriter, r *http.Request) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var in collector.ExportTraceServiceRequest
	body, err := read(w, r)
	switch {
	case err != nil:
	case kind == "application/x-protobuf":
		err = proto.Unmarshal(body, &in)
	default:
		http.Error(w, "this collector takes http/protobuf only", http.StatusUnsupportedMediaType)
		return
	}
	if err != nil {
		http.Error(w, "this is not OTLP", http.StatusBadRequest)
		return
	}
	for _, resource := range in.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				v.add(&span{s, text(resource.GetResource().GetAttributes(), "service.name")})
			}
		}
	}
	w.Header().Set("Content-Type", kind) // of an empty answer: all is taken
}

func read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body := http.MaxBytesReader(w, r.Body, maxBody)
	if r.Header.Get("Content-Encoding") != "gzip" {
		return io.ReadAll(body)
	}
	unpacked, err := gzip.NewReader(body)
	if err != nil {
		return nil, fmt.Errorf("reading spans: %w", err)
	}
	content, err := io.ReadAll(io.LimitReader(unpacked, maxBody+1))
	if len(content) > maxBody {
		return nil, errors.New("reading spans: too many")
	}
	return content, err
}

func (v *View) add(s *span) {
	if len(s.TraceId) != 16 || len(s.SpanId) != 8 {
		return // OTLP calls it invalid
	}
	id := hex.EncodeToString(s.TraceId)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.traces == nil {
		v.traces = map[string]*trace{}
	}
	t := v.traces[id]
	if t == nil {
		if len(v.order) == maxTraces {
			delete(v.traces, v.order[0])
			v.order = v.order[1:]
		}
		t = &trace{spans: map[string]*span{}}
		v.traces[id], v.order = t, append(v.order, id)
	}
	if len(t.spans) == maxSpans {
		t.left++
		return
	}
	t.spans[hex.EncodeToString(s.SpanId)] = s
}

// row is a trace in the list, or a span in its trace.
type row struct {
	ID, Name, Service, Kind string
	At                      time.Time
	Took                    time.Duration
	Failed                  bool
	Spans                   int
	// Depth, and where the bar begins and ends, in percent of the trace.
	Depth       int
	Left, Width float64
	Attributes  []attribute
	// Links are other traces that led to this span.
	Links []string
}

type attribute struct{ Name, Value string }

func (v *View) list() (rows []row) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range slices.Backward(v.order) {
		spans := v.traces[id].sorted()
		first := spans[0]
		r := row{ID: id, Name: first.Name, Service: first.service, At: at(first.StartTimeUnixNano), Spans: len(spans)}
		for _, s := range spans {
			r.Failed = r.Failed || failed(s)
			r.Took = max(r.Took, at(s.EndTimeUnixNano).Sub(r.At).Round(time.Microsecond))
		}
		rows = append(rows, r)
	}
	return rows
}

// shown is a trace as its page shows it.
type shown struct {
	ID   string
	Left int
	Rows []row
}

func (v *View) trace(id string) *shown {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.traces[id]
	if t == nil {
		return nil
	}
	spans := t.sorted()
	begin, end := at(spans[0].StartTimeUnixNano), time.Time{}
	children := map[string][]*span{}
	for _, s := range spans {
		if e := at(s.EndTimeUnixNano); e.After(end) {
			end = e
		}
		parent := hex.EncodeToString(s.ParentSpanId)
		if t.spans[parent] == nil {
			parent = "" // it is in another program, or did not arrive
		}
		children[parent] = append(children[parent], s)
	}
	out, whole := &shown{ID: id, Left: t.left}, max(end.Sub(begin), 1)
	var add func(parent string, depth int)
	add = func(parent string, depth int) {
		for _, s := range children[parent] {
			r := row{
				ID: hex.EncodeToString(s.SpanId), Name: s.Name, Service: s.service, Kind: strings.ToLower(strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_")),
				At: at(s.StartTimeUnixNano), Took: at(s.EndTimeUnixNano).Sub(at(s.StartTimeUnixNano)).Round(time.Microsecond), Failed: failed(s), Depth: depth,
			}
			r.Left = 100 * float64(r.At.Sub(begin)) / float64(whole)
			r.Width = max(100*float64(r.Took)/float64(whole), 0.2)
			for _, a := range s.Attributes {
				r.Attributes = append(r.Attributes, attribute{a.Key, plain(a.Value)})
			}
			for _, l := range s.Links {
				r.Links = append(r.Links, hex.EncodeToString(l.TraceId))
			}
			out.Rows = append(out.Rows, r)
			add(r.ID, depth+1)
		}
	}
	add("", 0)
	return out
}

// sorted returns the spans by their beginning.
func (t *trace) sorted() []*span {
	spans := make([]*span, 0, len(t.spans))
	for _, s := range t.spans {
		spans = append(spans, s)
	}
	slices.SortFunc(spans, func(a, b *span) int {
		return cmp.Or(cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano), cmp.Compare(b.EndTimeUnixNano, a.EndTimeUnixNano), slices.Compare(a.SpanId, b.SpanId))
	})
	return spans
}

func at(nanoseconds uint64) time.Time { return time.Unix(0, int64(nanoseconds)).UTC() }

func failed(s *span) bool { return s.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR }

func text(attributes []*common.KeyValue, key string) string {
	for _, a := range attributes {
		if a.Key == key {
			return plain(a.Value)
		}
	}
	return ""
}

func plain(v *common.AnyValue) string {
	switch v.GetValue().(type) {
	case *common.AnyValue_StringValue:
		return v.GetStringValue()
	case *common.AnyValue_IntValue:
		return fmt.Sprint(v.GetIntValue())
	case *common.AnyValue_BoolValue:
		return fmt.Sprint(v.GetBoolValue())
	case *common.AnyValue_DoubleValue:
		return fmt.Sprint(v.GetDoubleValue())
	}
	return v.String()
}
