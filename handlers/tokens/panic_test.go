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
	s.grants.users.Add("user", cacheEntry{grants: []*store.Grant{nil}, read: time.Now()})
	nc := f.js.Conn()
	require.NoError(t, s.Start(nc))
	reply, err := nc.Request(f.subjects.TokenGet("user"), []byte(`{"userId":"user"}`), patience)
	require.NoError(t, err)
	require.Equal(t, events.CodeInternal, reply.Header.Get(micro.ErrorHeader))
	require.NoError(t, s.Stop())
}
