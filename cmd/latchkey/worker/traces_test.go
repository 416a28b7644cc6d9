package worker_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// Trace and span ids of a publisher and of somebody who asks for tokens.
const (
	publisherTrace = "0af7651916cd43dd8448eb211c80319c"
	publisherSpan  = "b7ad6b7169203331"
	callerTrace    = "4bf92f3577b34da6a3ce929d0e0e4736"
	callerSpan     = "00f067aa0ba902b7"
)

// parent is a traceparent header, in a case that some clients write.
func parent(trace, span, flags string) nats.Header {
	return nats.Header{"Traceparent": {"00-" + trace + "-" + span + "-" + flags}, "tracestate": {"vendor=opaque"}}
}

// traceOf returns the trace that the nth event of a kind about a user came in.
func (h *harness) traceOf(kind, user string, n uint64) string {
	h.t.Helper()
	h.nth(kind, user, int(n))
	stream, err := h.js.Stream(h.ctx, h.subjects.LifecycleStream())
	require.NoError(h.t, err)
	next := uint64(1)
	var msg *jetstream.RawStreamMsg
	for range n {
		h.eventually(func() bool {
			msg, err = stream.GetMsg(h.ctx, next, jetstream.WithGetMsgSubject(h.subjects.Lifecycle(kind, user)))
			return err == nil
		}, "the event is stored")
		next = msg.Sequence + 1
	}
	if msg.Header.Get("traceparent") == "" {
		return ""
	}
	parts := strings.Split(msg.Header.Get("traceparent"), "-")
	require.Len(h.t, parts, 4)
	return parts[1]
}

func (h *harness) publishTraced(user string, c meshsim.Connection, age time.Duration, header nats.Header) {
	h.t.Helper()
	msg := &nats.Msg{Subject: h.subjects.Connected(), Header: header, Data: fmt.Appendf(nil,
		`{"userId":%q,"payload":%s,"connectedAt":%q}`, user, c.Payload.Reveal(), time.Now().Add(-age).Format(time.RFC3339Nano))}
	_, err := h.js.PublishMsg(h.ctx, msg)
	require.NoError(h.t, err)
}

func TestTracesFollowAGrant(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	out := receiveTraces(t)
	tracing := []string{"LATCHKEY_TRACING_ENDPOINT=" + out.URL, "LATCHKEY_TRACING_HEADERS=x-key=k3y-of-the-collector", "LATCHKEY_TRACING_SERVICE_NAME=keeper"}
	w := h.worker(tracing...)

	// A connect comes in the trace of its publisher. Its schedule is lost with
	// the worker that made it.
	h.publishTraced("alice", h.issue("coinbase", "a"), fresh, parent(publisherTrace, publisherSpan, "01"))
	require.Equal(t, publisherTrace, h.traceOf(events.TokenStored, "alice", 1))
	h.publishTraced("bob", h.issue("kraken", "b"), fresh, nats.Header{"traceparent": {"00-garbage"}})
	bobs := h.traceOf(events.TokenStored, "bob", 1)
	h.publishTraced("carol", h.issue("kraken", "c"), fresh, parent("11111111111111111111111111111111", publisherSpan, "00"))
	h.event(events.TokenStored, "carol")
	h.publish(h.subjects.Connected(), `{"userId":7}`)
	h.deadLetters(1)
	w.stop()
	grant := h.grants("alice")[0].ID
	stream, err := h.js.Stream(h.ctx, h.subjects.RefreshStream())
	require.NoError(t, err)
	require.NoError(t, stream.Purge(h.ctx))
	h.set(grant, bson.D{{Key: "due.at", Value: store.Milli(time.Now())}})

	connected := out.span(publisherTrace, "process integration.connected")
	require.Equal(t, publisherSpan, connected.parent())
	require.Equal(t, "vendor=opaque", connected.TraceState)
	require.Equal(t, "done", connected.attribute("latchkey.outcome"))
	require.Equal(t, "nats", connected.attribute("messaging.system"))
	require.Equal(t, h.subjects.Connected(), connected.attribute("messaging.destination.name"))
	for _, name := range []string{"insert grants", "send token.stored", "send refresh.schedule"} {
		span := out.span(publisherTrace, name)
		require.Equal(t, connected.id(), span.parent(), name)
		require.Equal(t, grant, span.attribute("latchkey.grant"), name)
	}
	require.NotEmpty(t, bobs)
	require.Empty(t, out.span(bobs, "process integration.connected").parent(), "a malformed header begins no trace")
	require.Empty(t, out.spans("11111111111111111111111111111111", ""), "what its sender does not record is not recorded")
	parked := 0
	for _, s := range out.spans("", "process integration.connected") {
		if s.attribute("latchkey.outcome") == "parked" {
			parked++
			require.Equal(t, "*events.InvalidError", s.attribute("error.type"))
		}
	}
	require.Equal(t, 1, parked)

	// Hours later another worker finds the schedule missing, makes it, and
	// refreshes.
	require.NoError(t, h.stack.Mesh.Script("a", meshsim.HTTPStatus(503)))
	w = h.worker(tracing...)
	refreshes := h.traceOf(events.TokenRefreshed, "alice", 1)
	// A caller wants a token with more life than is left.
	body, err := json.Marshal(h.refusing(events.TokenRequest{UserID: "bob"}))
	require.NoError(t, err)
	reply, err := h.nc.RequestMsg(&nats.Msg{Subject: h.subjects.TokenGet("bob"), Header: parent(callerTrace, callerSpan, "01"), Data: body}, patience)
	require.NoError(t, err)
	require.Empty(t, reply.Header.Get("Nats-Service-Error"))
	require.Equal(t, callerTrace, h.traceOf(events.TokenRefreshed, "bob", 1))
	w.stop()

	require.NotEqual(t, publisherTrace, refreshes)
	second := out.span(refreshes, "process refresh.due")
	require.Empty(t, second.parent())
	require.Len(t, second.Links, 1)
	// The refresh that failed is a trace of its own, which the one that came of it links to.
	first := out.span(second.links()[0], "process refresh.due")
	require.Equal(t, []string{publisherTrace}, first.links())
	failed := out.span(first.trace(), "POST /api/v1/token/refresh")
	require.Equal(t, "transient", failed.attribute("latchkey.outcome"))
	require.Contains(t, failed.attribute("http.response.status_code"), "503")
	require.Equal(t, "transient", out.span(first.trace(), "refresh").attribute("latchkey.outcome"))
	refresh := out.span(refreshes, "refresh")
	require.Equal(t, second.id(), refresh.parent())
	require.Equal(t, "refreshed", refresh.attribute("latchkey.outcome"))
	require.Equal(t, "coinbase", refresh.attribute("latchkey.broker"))
	for _, name := range []string{"findAndModify grants", "POST /api/v1/token/refresh", "replace grants", "send token.refreshed", "send refresh.schedule"} {
		require.Equal(t, refresh.id(), out.span(refreshes, name).parent(), name)
	}
	require.NotEmpty(t, out.spans("", "kms Decrypt"), "the second worker had to unwrap a data key")

	asked := out.span(callerTrace, "token.get")
	require.Equal(t, callerSpan, asked.parent())
	require.Equal(t, "ok", asked.attribute("latchkey.outcome"))
	require.Equal(t, asked.id(), out.span(callerTrace, "refresh").parent())

	require.Equal(t, "/v1/traces", out.paths[0])
	require.Equal(t, "k3y-of-the-collector", out.header.Get("X-Key"))
	require.Equal(t, map[string]bool{"keeper": true}, out.names)
	require.Contains(t, h.logs.String(), `"trace_id":"`+publisherTrace+`"`)
	require.NotContains(t, h.logs.String(), "k3y-of-the-collector")
	for _, secret := range []string{"alice", "bob", "k3y-of-the-collector", "sim-access", "sim-refresh"} {
		require.NotContains(t, out.text(), secret)
	}
}

func TestWithoutTracingAContextIsPassedOn(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	h.publishTraced("alice", h.issue("coinbase", "a"), fresh, parent(publisherTrace, publisherSpan, "01"))
	require.Equal(t, publisherTrace, h.traceOf(events.TokenStored, "alice", 1))
	h.get(h.refusing(events.TokenRequest{UserID: "alice"}))
	require.Empty(t, h.traceOf(events.TokenRefreshed, "alice", 1), "nobody's trace")
}

// A collector that refuses or is away costs no grant anything, and what it says
// is not logged.
func TestACollectorThatRefusesIsLoggedAndNoMore(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	asked := make(chan string, 100)
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/traces", func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		http.Redirect(w, r, "/elsewhere?echo="+r.Header.Get("X-Key"), http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	w := h.worker("LATCHKEY_TRACING_ENDPOINT="+server.URL, "LATCHKEY_TRACING_HEADERS=x-key=k3y-of-the-collector")
	h.connect("alice", spec("coinbase"))
	h.event(events.TokenStored, "alice")
	w.stop()
	require.NotEmpty(t, asked)
	require.Contains(t, h.logs.String(), "traces could not be sent and are dropped")
	require.NotContains(t, h.logs.String(), "k3y-of-the-collector")
}
