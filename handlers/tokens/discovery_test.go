package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
)

// discovered is a service in discovery with a clock that stands until it is set.
type discovered struct {
	*discovery
	nc    *nats.Conn
	clock atomic.Int64
}

func (f *fixture) discoverable(data func() any) *discovered {
	f.t.Helper()
	d := &discovered{nc: f.js.Conn()}
	inboxes := func(reply string) bool { return strings.HasPrefix(reply, "_INBOX.") }
	d.discovery = discoverable(d.nc, f.subjects.Prefix+"-test", "for a test", nil, data, func() time.Time { return time.Unix(0, d.clock.Load()) }, inboxes)
	f.t.Cleanup(func() { _ = d.stop() })
	return d
}

// ask is what `nats micro` does.
func (d *discovered) ask(t *testing.T, verb micro.Verb, into any) {
	t.Helper()
	subject, err := micro.ControlSubject(verb, d.info.Name, d.info.ID)
	require.NoError(t, err)
	msg, err := d.nc.Request(subject, nil, patience)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(msg.Data, into))
}

func TestStatsCountRefusalsAndTheWholeAnswer(t *testing.T) {
	f := newFixture(t)
	d := f.discoverable(func() any { return map[string]int{"refreshed": 3} })
	waiting := make(chan request, 3)
	observed := map[string]time.Duration{}
	subject := f.subjects.Prefix + ".asked"
	require.NoError(t, d.add("get", subject, func(r request) { waiting <- r }, map[string]string{"reply": "R"}, func(code string, took time.Duration) { observed[code] += took }))
	require.NoError(t, d.add("idle", f.subjects.Prefix+".idle", func(request) {}, nil, nil))
	require.NoError(t, d.announce())
	for range 3 {
		require.NoError(t, d.nc.PublishRequest(subject, nats.NewInbox(), []byte("x")))
	}
	var all []request
	for range 3 {
		all = append(all, enginestest.Receive(t, waiting)) // the handlers have returned long since
	}
	var stats micro.Stats
	d.ask(t, micro.StatsVerb, &stats)
	require.Zero(t, stats.Endpoints[0].NumRequests, "none is answered")

	d.clock.Store(int64(2 * time.Second))
	all[0].done(codeOK)
	d.clock.Store(int64(4 * time.Second))
	all[1].done(events.CodeBusy)
	all[2].done(events.CodeRefused)
	d.ask(t, micro.StatsVerb, &stats)
	require.Equal(t, &micro.EndpointStats{
		Name: "get", Subject: subject, QueueGroup: d.info.Name, NumRequests: 3, NumErrors: 2, LastError: "422:code_refused",
		ProcessingTime: 10 * time.Second, AverageProcessingTime: 10 * time.Second / 3, Data: json.RawMessage(`{"refreshed":3}`),
	}, stats.Endpoints[0])
	require.Zero(t, stats.Endpoints[1].NumRequests)
	require.Equal(t, map[string]time.Duration{codeOK: 2 * time.Second, events.CodeBusy: 4 * time.Second, events.CodeRefused: 4 * time.Second}, observed)

	var info micro.Info
	d.ask(t, micro.InfoVerb, &info)
	require.Equal(t, d.info, info)
	var ping micro.Ping
	d.ask(t, micro.PingVerb, &ping)
	require.Equal(t, micro.Ping{ServiceIdentity: d.info.ServiceIdentity, Type: micro.PingResponseType}, ping)
}

func TestDiscoveryAnswersInboxesOnly(t *testing.T) {
	f := newFixture(t)
	d := f.discoverable(nil)
	require.NoError(t, d.announce())
	elsewhere := make(chan *nats.Msg, 2)
	_, err := d.nc.ChanSubscribe(f.subjects.Prefix+".elsewhere", elsewhere)
	require.NoError(t, err)
	subject, err := micro.ControlSubject(micro.PingVerb, d.info.Name, d.info.ID)
	require.NoError(t, err)
	require.NoError(t, d.nc.PublishRequest(subject, f.subjects.Prefix+".elsewhere", nil))
	var ping micro.Ping
	d.ask(t, micro.PingVerb, &ping) // behind it
	require.NoError(t, d.nc.Publish(f.subjects.Prefix+".elsewhere", []byte("the last")))
	require.Equal(t, "the last", string(enginestest.Receive(t, elsewhere).Data))
}

func TestNothingIsDiscoverableWithoutNATS(t *testing.T) {
	f := newFixture(t)
	d := f.discoverable(nil)
	require.NoError(t, d.add("get", f.subjects.Prefix+".asked", func(request) {}, nil, nil))
	d.nc.Close()
	require.ErrorIs(t, d.add("more", f.subjects.Prefix+".more", func(request) {}, nil, nil), nats.ErrConnectionClosed)
	require.ErrorIs(t, d.announce(), nats.ErrConnectionClosed)
	require.NoError(t, d.stop(), "there is nothing to drain")
}

// noKeys can't be had.
type noKeys struct{}

func (noKeys) Public(context.Context) (events.TokenKeys, error) {
	return events.TokenKeys{}, errors.New("none")
}

// TestEveryEndpointCountsItsAnswers asks each for what it can't give.
func TestEveryEndpointCountsItsAnswers(t *testing.T) {
	f := newFixture(t)
	s := f.tokenService(f.envelope(), nil)
	s.opts.Keys = noKeys{}
	require.NoError(t, s.Start(f.js.Conn()))
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	want := map[string]string{"get": "400:bad_request", "keys": "503:busy", "mfa": "400:bad_request"}
	for _, subject := range []string{f.subjects.TokenGet("alice"), f.subjects.TokenKeys(), f.subjects.TokenMFA("alice")} {
		_, err := f.js.Conn().Request(subject, []byte("{"), patience)
		require.NoError(t, err)
	}
	got := map[string]string{}
	f.eventually(func() bool {
		for _, e := range s.service.stats().Endpoints {
			if e.NumRequests == 1 && e.NumErrors == 1 {
				got[e.Name] = e.LastError
			}
		}
		return len(got) == len(want)
	}, "all are counted")
	require.Equal(t, want, got)
	require.Equal(t, 1, testutil.CollectAndCount(s.durations), "of requests for tokens only")

	// A request that gets no answer is an error too.
	for _, subject := range []string{f.subjects.TokenGet("alice"), f.subjects.TokenKeys(), f.subjects.TokenMFA("alice")} {
		require.NoError(t, f.js.Conn().PublishRequest(subject, f.subjects.Prefix+".no-inbox", []byte("{}")))
	}
	f.eventually(func() bool {
		return !slices.ContainsFunc(s.service.stats().Endpoints, func(e *micro.EndpointStats) bool {
			return e.NumErrors != 2 || e.LastError != "400:bad_reply"
		})
	}, "it is counted")
	for _, counter := range []*prometheus.CounterVec{s.requests, s.codes} {
		require.EqualValues(t, 1, testutil.ToFloat64(counter.WithLabelValues(codeBadReply)), "its own")
	}
}
