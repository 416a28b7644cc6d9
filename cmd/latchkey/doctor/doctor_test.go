package doctor

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/store/streams"
)

// found expects the outcome of a check, and something in its text.
func found(t *testing.T, r Result, status Status, text string) {
	t.Helper()
	require.Equal(t, status, r.Status, "%+v", r)
	require.NotEmpty(t, r.Detail)
	require.Equal(t, r.Status == OK, r.Do == "", "%+v", r)
	require.Contains(t, r.Detail+"\n"+r.Do, text)
}

func TestMesh(t *testing.T) {
	t.Parallel()
	var status int
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer elsewhere.Close()
	examine := func() (mesh, clock Result) {
		cfg := config.Config{Mesh: config.Mesh{URL: elsewhere.URL, ClientID: "id", Timeout: time.Minute}, Worker: config.Worker{ClockSkew: 10 * time.Second}}
		d := &doctor{cfg: cfg, now: time.Now, readings: map[string]reading{}}
		mesh = d.mesh(t.Context())
		return mesh, d.clock("mesh")
	}
	for code, want := range map[int]Status{302: Failed, 400: OK, 401: Failed, 403: Failed, 404: Failed, 405: Failed, 429: Warning, 500: Warning, 503: Warning} {
		status = code
		mesh, clock := examine()
		found(t, mesh, want, fmt.Sprintf("HTTP %d", code))
		require.NotContains(t, clock.Detail, "no answer", "every answer has a time")
	}
	elsewhere.Close()
	mesh, clock := examine()
	found(t, mesh, Failed, "mesh.url")
	found(t, clock, Warning, "no answer")
}

func TestClock(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ahead  time.Duration // of the other clock
		took   time.Duration
		status Status
		text   string
	}{
		{0, 0, OK, "no difference"},
		{time.Second, 4 * time.Second, OK, "no difference"}, // within what the call took
		{3 * time.Second, 0, OK, "behind that of nats"},
		{-7 * time.Second, 0, Warning, "ahead of that of nats"},
		{7 * time.Second, 0, Warning, "behind that of nats"},
		{time.Minute, 0, Failed, "time synchronisation"},
		{-time.Minute, 0, Failed, "time synchronisation"},
		{11 * time.Second, 4 * time.Second, Warning, "time synchronisation"}, // 11 s, give or take 2
	} {
		began := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		d := &doctor{
			cfg:      config.Config{Worker: config.Worker{ClockSkew: 10 * time.Second}},
			now:      func() time.Time { return began.Add(c.took) },
			readings: map[string]reading{},
		}
		d.timed("nats", began, time.Time{}, 0) // an answer without a time counts for nothing
		found(t, d.clock("nats"), Warning, "no answer with a time")
		d.timed("nats", began, began.Add(c.took/2+c.ahead), 0)
		d.timed("nats", began, began.Add(time.Hour), 0) // the first answer counts
		r := d.clock("nats")
		found(t, r, c.status, c.text)
		require.Equal(t, "clock nats", r.Check)
	}
}

// A check that ignores its deadline is given up, and one that keeps it has its say.
func TestEveryCheckEnds(t *testing.T) {
	t.Parallel()
	stuck := make(chan struct{})
	defer close(stuck)
	found(t, within(t.Context(), time.Millisecond, func(context.Context) Result { <-stuck; return ok("late") }), Failed, "no answer within 1ms")
	found(t, within(t.Context(), time.Millisecond, func(ctx context.Context) Result {
		<-ctx.Done()
		return failed("do this", "gave up")
	}), Failed, "gave up")
	found(t, within(t.Context(), time.Minute, func(context.Context) Result { return ok("well") }), OK, "well")
}

func TestStreamsThatAreMissingOrDiffer(t *testing.T) {
	t.Parallel()
	wish := streams.Difference{Setting: "max_age", Is: "1h", Want: "2h"}
	need := streams.Difference{Setting: "storage", Is: "Memory", Want: "File", Needed: true}
	missing, differ, unfit := differences([]streams.Inspection{{Name: "A"}, {Name: "B", Missing: true}, {Name: "C", Differs: []streams.Difference{wish}}})
	require.Equal(t, []string{"B"}, missing)
	require.Equal(t, []string{"C (max_age is 1h, not 2h)"}, differ)
	require.False(t, unfit)
	_, differ, unfit = differences([]streams.Inspection{{Name: "C", Differs: []streams.Difference{wish, need}}})
	require.Equal(t, []string{"C (max_age is 1h, not 2h, storage is Memory, not File)"}, differ)
	require.True(t, unfit)
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{"localhost": true, "127.0.0.1": true, "127.8.9.1": true, "::1": true, "10.0.0.1": false, "nats.example.com": false, "": false} {
		require.Equal(t, want, loopback(host), host)
	}
}
