package tokens

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// What a grant's use is for is a hint: no request waits for it or fails with it.
func TestTheUseOfAGrantIsRecordedOnceForEachVersion(t *testing.T) {
	db := enginestest.MongoDB(t)
	s, err := store.Open(t.Context(), store.Options{URI: secret.New(db.URI()), Database: enginestest.Name(t), Timeout: time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	core, logs := observer.New(zapcore.DebugLevel)
	service, err := New(Options{
		Store: s, Refresher: &refresher.Refresher{}, Config: config.Default().Tokens, Now: time.Now, Log: zap.New(core), Metrics: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	g := &store.Grant{ID: "g", UserID: "user", BrokerType: "bench", State: store.Active, Version: 2}
	require.NoError(t, s.Insert(t.Context(), g))
	used := func(g *store.Grant) int64 {
		service.recordUse(g)
		service.atWork.Wait()
		stored, err := s.Get(t.Context(), "g")
		require.NoError(t, err)
		return stored.UsedIn
	}
	earlier := g.Clone()
	earlier.Version = 1
	require.Zero(t, used(earlier), "a newer version is not in use for that")
	service.noting.Lock() // once the pause after a write is over
	require.Zero(t, used(g), "another one is being written")
	service.noting.Unlock()
	require.EqualValues(t, 2, used(g))
	require.Empty(t, logs.All())

	service.noting.Lock()
	db.Proxy().FailWrites(13, func(string, string) bool { return true })
	service.noting.Unlock()
	g.Version = 3
	service.recordUse(g)
	service.atWork.Wait()
	require.Equal(t, 1, logs.FilterMessageSnippet("could not be recorded").Len())
	require.Equal(t, zapcore.DebugLevel, logs.All()[0].Level)
}
