package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// The demo shows a grant that ends with its access token since the institution refuses
// its refresh token. The pause before a refusal is confirmed must fit into that.
func TestARefusalInTheDemoIsConfirmedBeforeTheAccessTokenEnds(t *testing.T) {
	s, err := stack.Start(stack.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	cfg, err := s.Config(demoSettings()...)
	require.NoError(t, err)
	now := store.Milli(time.Now())
	settler, err := refresher.NewSettler(refresher.SettlerOptions{Config: cfg, Now: func() time.Time { return now }, NewID: func() string { return "id" }, Rand: func() float64 { return 1 }})
	require.NoError(t, err)
	end, later := now.Add(demoLife), now.Add(time.Hour)
	g := &store.Grant{
		ID: "id", UserID: "frank", BrokerType: "gemini", State: store.Active, Version: 1, ConnectedAt: now,
		Access: &store.Lifetime{Since: now, ExpiresAt: &end}, Refresh: &store.Lifetime{Since: now, ExpiresAt: &later},
	}
	settler.Schedule(g, settler.Policy.Next(g))
	for g.State == store.Active {
		require.Equal(t, store.Refresh, g.Due.Action)
		now = g.Due.At
		require.True(t, now.Before(end), "due at %s, the access token ends at %s", now, end)
		require.NoError(t, settler.ApplyFailure(g, &refresher.Failure{Class: refresher.Dead, Reason: events.ReasonRejected}))
	}
	require.True(t, refresher.GivenUp(g))
	require.Equal(t, &store.Due{At: end, Action: store.Expire}, &store.Due{At: g.Due.At, Action: g.Due.Action})
}

// interruptAt is interrupted when a text is written to it.
type interruptAt struct {
	text      string
	interrupt func()
}

func (w interruptAt) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.interrupt()
	}
	return len(p), nil
}

// Ctrl-C in the middle is no failure to report: one line, the exit code that shells expect,
// and nothing left behind.
func TestTheDemoCanBeInterrupted(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var said bytes.Buffer
	require.Equal(t, exitInterrupted, run(ctx, []string{"demo"}, interruptAt{"alice  connects", interrupt}, &said))
	require.Equal(t, "Interrupted.\n", said.String())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}
