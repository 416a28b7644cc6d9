package tokens

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// brokenRequest is a request of which nothing can be read.
type brokenRequest struct{ request }

func (brokenRequest) done(string)            {}
func (brokenRequest) Headers() micro.Headers { panic("a value that is not kept") }
func (brokenRequest) Reply() string          { panic("a value that is not kept") }
func (brokenRequest) Subject() string        { panic("a value that is not kept") }

func TestAPanicBesideARequestEndsNothing(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	s := &Service{opts: Options{Config: config.Tokens{Timeout: time.Minute}, Log: zap.New(core)}}
	for range 3 {
		s.receive(brokenRequest{})
	}
	s.atWork.Wait()
	require.Equal(t, 3, logs.FilterMessage("a token request was not answered").Len())
	for _, e := range logs.All() {
		require.NotContains(t, e.ContextMap()["error"], "not kept")
		require.Contains(t, e.ContextMap()["error"], "panic in a handler of token requests (string)")
	}
}

// TestAPanicBesideARequestIsCounted once, and in every metric.
func TestAPanicBesideARequestIsCounted(t *testing.T) {
	f := newFixture(t)
	s := f.tokenService(f.envelope(), nil)
	e := &endpoint{now: time.Now, observe: s.observe}
	s.receive(&received{endpoint: e}) // without a message to read
	require.EqualValues(t, 1, testutil.ToFloat64(s.requests.WithLabelValues(events.CodeInternal)))
	require.Equal(t, 1, testutil.CollectAndCount(s.durations))
	require.Equal(t, 1, e.stats.NumErrors)
}

func TestAPanicOverWhatIsKeptIsAnswered(t *testing.T) {
	f := newFixture(t)
	s := f.tokenService(f.envelope(), func(context.Context, string) ([]*store.Grant, error) { return nil, nil })
	nc := f.js.Conn()
	require.NoError(t, s.Start(nc))
	broken := &kept{}
	broken.last.Store(&reading{grants: []*store.Grant{nil}, at: time.Now()})
	s.grants.users.Add("user", broken)
	reply, err := nc.Request(f.subjects.TokenGet("user"), []byte(`{"userId":"user"}`), patience)
	require.NoError(t, err)
	require.Equal(t, events.CodeInternal, reply.Header.Get(micro.ErrorHeader))
	require.NoError(t, s.Stop())
}

// brokenKeys fail by a panic.
type brokenKeys struct{}

func (brokenKeys) Public(context.Context) (events.TokenKeys, error) {
	panic("a value that is not kept")
}

func TestAPanicOverKeysIsAnswered(t *testing.T) {
	f := newFixture(t)
	s := f.tokenService(f.envelope(), nil)
	s.opts.Keys = brokenKeys{}
	nc := f.js.Conn()
	require.NoError(t, s.Start(nc))
	for range maxWaiting + 1 { // none keeps its place
		reply, err := nc.Request(f.subjects.TokenKeys(), nil, patience)
		require.NoError(t, err)
		require.Equal(t, events.CodeInternal, reply.Header.Get(micro.ErrorHeader))
	}
	require.NoError(t, s.Stop())
	require.Contains(t, f.logs.String(), "a request for keys failed")
	require.NotContains(t, f.logs.String(), "not kept")
}

// brokenStore and brokenRefresher fail by a panic in goroutines beside an answer.
type brokenStore struct{ Store }

func (brokenStore) RecordUse(context.Context, *store.Grant) error { panic("a value that is not kept") }

type brokenRefresher struct{ Refresher }

func (brokenRefresher) SuspendedFor(string) time.Duration { panic("a value that is not kept") }

func TestAPanicBesideAnAnswerEndsNothing(t *testing.T) {
	f := newFixture(t)
	s := f.tokenService(f.envelope(), nil)
	s.opts.Store, s.opts.Refresher = brokenStore{}, brokenRefresher{}
	g := &store.Grant{ID: "g", UserID: "user", BrokerType: "coinbase", Version: 2, State: store.Active}
	s.recordUse(g)
	s.atWork.Wait()
	require.Contains(t, f.logs.String(), "the use of a grant could not be recorded")

	grants := []*store.Grant{g}
	s.refreshAll(t.Context(), events.TokenRequest{UserID: "user"}, grants, []int{0}, nil, "caller")
	require.Equal(t, []*store.Grant{g}, grants)
	require.Contains(t, f.logs.String(), "waiting for the refresh of a grant failed")
	require.NotContains(t, f.logs.String(), "not kept")
}
