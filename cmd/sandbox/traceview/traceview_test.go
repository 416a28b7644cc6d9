package traceview_test

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey/latchkey/cmd/sandbox/traceview"
)

func value(s string) *common.AnyValue {
	return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: s}}
}

// encoded is a message of a worker with some spans.
func encoded(t *testing.T, spans ...*otlp.Span) []byte {
	t.Helper()
	body, err := proto.Marshal(&collector.ExportTraceServiceRequest{ResourceSpans: []*otlp.ResourceSpans{{
		Resource:   &resource.Resource{Attributes: []*common.KeyValue{{Key: "service.name", Value: value("latchkey")}}},
		ScopeSpans: []*otlp.ScopeSpans{{Spans: spans}},
	}}})
	require.NoError(t, err)
	return body
}

func id(n, size int) []byte { return bytes.Repeat([]byte{byte(n / 250), byte(n%250 + 1)}, size/2) }

func newSpan(trace, n, parent int, name string) *otlp.Span {
	s := &otlp.Span{TraceId: id(trace, 16), SpanId: id(n, 8), Name: name, StartTimeUnixNano: uint64(n) * 1e6, EndTimeUnixNano: uint64(n)*1e6 + 5e6}
	if parent > 0 {
		s.ParentSpanId = id(parent, 8)
	}
	return s
}

func serve(v http.Handler, method, path, contentType, encoding string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Content-Encoding", encoding)
	w := httptest.NewRecorder()
	v.ServeHTTP(w, r)
	return w
}

func post(t *testing.T, v http.Handler, spans ...*otlp.Span) {
	t.Helper()
	require.Equal(t, http.StatusOK, serve(v, http.MethodPost, "/v1/traces", "application/x-protobuf", "", encoded(t, spans...)).Code)
}

func get(t *testing.T, v http.Handler, path string) string {
	t.Helper()
	w := serve(v, http.MethodGet, path, "", "", nil)
	require.Equal(t, http.StatusOK, w.Code, path)
	return w.Body.String()
}

func TestTracesAreShown(t *testing.T) {
	v := &traceview.View{}
	require.Contains(t, get(t, v, "/"), "None has arrived yet")
	for _, invalid := range []*otlp.Span{{TraceId: id(1, 16), Name: "without an id"}, {SpanId: id(1, 8), Name: "of no trace"}} {
		post(t, v, invalid)
		require.Contains(t, get(t, v, "/"), "None has arrived yet")
	}

	connect := newSpan(1, 1, 0, "process integration.connected")
	connect.Attributes = []*common.KeyValue{
		{Key: "latchkey.broker", Value: value("<b>coinbase")},
		{Key: "n", Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: 42}}},
		{Key: "yes", Value: &common.AnyValue{Value: &common.AnyValue_BoolValue{BoolValue: true}}},
		{Key: "share", Value: &common.AnyValue{Value: &common.AnyValue_DoubleValue{DoubleValue: 0.5}}},
	}
	post(t, v, newSpan(1, 3, 2, "insert grants"), connect)
	post(t, v, newSpan(1, 2, 1, "send token.stored"))
	refresh := newSpan(2, 9, 77, "refresh")
	refresh.Links = []*otlp.Span_Link{{TraceId: id(1, 16)}}
	refresh.Status = &otlp.Status{Code: otlp.Status_STATUS_CODE_ERROR}
	post(t, v, refresh)

	list := get(t, v, "/")
	require.Contains(t, list, "process integration.connected")
	require.Equal(t, 1, strings.Count(list, ">failed<"))
	require.Less(t, strings.Index(list, "refresh"), strings.Index(list, "process integration.connected"), "the newest first")
	require.Contains(t, list, "7ms", "from the first beginning to the last end")

	one := get(t, v, "/traces/"+hex.EncodeToString(id(1, 16)))
	at := func(s string) int {
		require.Contains(t, one, s)
		return strings.Index(one, s)
	}
	require.Less(t, at("process integration.connected"), at("send token.stored"))
	require.Less(t, at("send token.stored"), at("insert grants"))
	at("&lt;b&gt;coinbase")
	at("42")
	at("true")
	at("0.5")
	require.Contains(t, get(t, v, "/traces/"+hex.EncodeToString(id(2, 16))), "/traces/"+hex.EncodeToString(id(1, 16)), "a link leads to what led to it")
}

func TestOnlySoMuchIsKept(t *testing.T) {
	v := &traceview.View{}
	for i := range 501 {
		post(t, v, newSpan(i, 1, 0, fmt.Sprint("trace ", i)))
	}
	require.Equal(t, http.StatusNotFound, serve(v, http.MethodGet, "/traces/"+hex.EncodeToString(id(0, 16)), "", "", nil).Code, "the oldest")
	get(t, v, "/traces/"+hex.EncodeToString(id(500, 16)))
	for i := range 1002 {
		post(t, v, newSpan(500, i+1, i, "span"))
	}
	require.Contains(t, get(t, v, "/traces/"+hex.EncodeToString(id(500, 16))), "2 more spans found no room")
}

func TestWhatIsNotOTLPIsRefused(t *testing.T) {
	v := &traceview.View{}
	const protobuf = "application/x-protobuf"
	good := encoded(t, newSpan(1, 1, 0, "packed"))
	pack := func(body []byte) []byte {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		_, err := w.Write(body)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return packed.Bytes()
	}
	for _, c := range []struct {
		method, path, kind, encoding string
		body                         []byte
		want                         int
	}{
		{http.MethodPost, "/v1/traces", protobuf, "gzip", pack(good), http.StatusOK},
		{http.MethodPost, "/v1/traces", protobuf, "gzip", good, http.StatusBadRequest},
		{http.MethodPost, "/v1/traces", protobuf, "gzip", pack(make([]byte, 9<<20)), http.StatusBadRequest},
		{http.MethodPost, "/v1/traces", protobuf, "", []byte("x"), http.StatusBadRequest},
		{http.MethodPost, "/v1/traces", protobuf, "", make([]byte, 9<<20), http.StatusBadRequest},
		{http.MethodPost, "/v1/traces", "application/json", "", []byte("{}"), http.StatusUnsupportedMediaType},
		{http.MethodGet, "/v1/traces", "", "", nil, http.StatusNotFound},
		{http.MethodPost, "/", protobuf, "", good, http.StatusMethodNotAllowed},
		{http.MethodGet, "/traces/zz", "", "", nil, http.StatusNotFound},
		{http.MethodGet, "/other", "", "", nil, http.StatusNotFound},
	} {
		require.Equal(t, c.want, serve(v, c.method, c.path, c.kind, c.encoding, c.body).Code, "%+v", c.want)
	}
	require.Contains(t, get(t, v, "/"), "packed")
}
