package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/streams/streamstest"
)

func TestAnEventThatNoWorkerWroteIsToldSafely(t *testing.T) {
	for _, output := range []format{asTable, asJSON} {
		var out, stderr strings.Builder
		s := &session{out: &out, stderr: &stderr, output: output}
		require.NoError(t, s.showEvent([]byte("{\x1b[2J")))
		require.Contains(t, stderr.String(), "no worker wrote")
		require.NotContains(t, stderr.String(), "\x1b")
		require.Empty(t, out.String(), "other programs read it")
	}
}

// TestAnEventIsShownAsTheCloudEventThatItIs, in one line that breaks no terminal.
func TestAnEventIsShownAsTheCloudEventThatItIs(t *testing.T) {
	e := events.LifecycleEvent{
		ID: "id", Kind: events.TokenExpired, Source: "latchkey/here", Time: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
		Data: events.Lifecycle{UserID: "alice", GrantID: "grant", BrokerType: "coinbase", BrokerName: "<Coin\u202ebase>", Accounts: []events.Account{{AccountID: "a", AccountName: "Main"}}, Version: 3, Reason: events.ReasonRejected, Labels: map[string]string{"team": "x"}},
	}
	body, err := e.Encode()
	require.NoError(t, err)
	var indented bytes.Buffer
	require.NoError(t, json.Indent(&indented, body, "", "  "))
	var out strings.Builder
	s := &session{out: &out, output: asJSON}
	require.NoError(t, s.showEvent(indented.Bytes()))
	require.Equal(t, 1, strings.Count(out.String(), "\n"))
	require.NotContains(t, out.String(), "\u202e")
	require.JSONEq(t, string(body), out.String())
	shown, err := events.DecodeLifecycle([]byte(out.String()))
	require.NoError(t, err)
	require.Equal(t, e, shown)

	out.Reset()
	s = &session{out: screen{&out}, output: asTable}
	require.NoError(t, s.showEvent(body))
	require.Equal(t, "2026-03-01T00:00:00Z  \x1b[31mtoken.expired  \x1b[0m  grant  coinbase  alice  version 3  rejected\n", out.String())
}

// Who follows events goes on following while streams are added, and made anew.
func TestFollowsEventsWhileTheirStreamsChange(t *testing.T) {
	nc, err := nats.Connect(enginestest.NATSWith(t, engines.NATSOptions{}).URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	cfg := config.Default()
	ensure := func(partitions int) {
		cfg.NATS.Partitions = partitions
		_, err := streamstest.New(js, cfg, zap.NewNop()).Ensure(t.Context())
		require.NoError(t, err)
	}
	user := func(partition int) string {
		for id := "u"; ; id += "u" {
			if cfg.NATS.Subjects().PartitionOf(id) == partition {
				return id
			}
		}
	}
	read, write := io.Pipe()
	shown := json.NewDecoder(read)
	tell := func(id, user string) {
		e := events.LifecycleEvent{ID: id, Kind: events.TokenStored, Data: events.Lifecycle{UserID: user, GrantID: "g", BrokerType: "coinbase", Version: 1}}
		body, err := e.Encode()
		require.NoError(t, err)
		s := cfg.NATS.Subjects()
		_, err = js.Publish(t.Context(), s.PublishedLifecycle(s.Lifecycle(e.Kind, user)), body)
		require.NoError(t, err)
	}
	shows := func(id string) {
		t.Helper()
		var e struct{ ID string }
		require.NoError(t, shown.Decode(&e))
		require.Equal(t, id, e.ID)
	}
	ensure(1)
	tell("before", "u")
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	s := &session{ctx: ctx, js: js, cfg: cfg, out: write, stderr: io.Discard, output: asJSON}
	ended := make(chan error, 1)
	go func() {
		ended <- s.tail(tailFilter{since: time.Now().Add(-time.Hour), follow: true, look: 50 * time.Millisecond})
		_ = write.Close()
	}()
	shows("before")
	ensure(3)
	for n, id := range []string{"0", "1", "2"} {
		tell(id, user(n))
		shows(id)
	}
	first := cfg.NATS.Subjects().LifecycleStream()
	require.NoError(t, js.DeleteStream(t.Context(), first))
	ensure(3)
	tell("anew", user(0))
	shows("anew")
	stop()
	require.NoError(t, <-ended)
}
