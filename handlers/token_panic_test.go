package handlers

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/latchkey/latchkey/config"
)

// brokenRequest is a request of which nothing can be read.
type brokenRequest struct{ micro.Request }

func (brokenRequest) Headers() micro.Headers { panic("a value that is not kept") }
func (brokenRequest) Reply() string          { panic("a value that is not kept") }
func (brokenRequest) Subject() string        { panic("a value that is not kept") }

func TestAPanicBesideARequestEndsNothing(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	s := &TokenService{cfg: config.Tokens{Timeout: time.Minute}, log: zap.New(core), slots: make(chan struct{}, 1)}
	for range 3 { // more than there are slots
		s.receive(brokenRequest{})
	}
	s.atWork.Wait()
	require.Equal(t, 3, logs.FilterMessage("a token request was not answered").Len())
	for _, e := range logs.All() {
		require.NotContains(t, e.ContextMap()["error"], "not kept")
		require.Contains(t, e.ContextMap()["error"], "panic in a handler of token requests (string)")
	}
}
