package worker_test

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/cmd/latchkey/bench"
	"github.com/latchkey/latchkey/cmd/latchkey/cli"
)

func TestBenchMeasuresAndLeavesNothing(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	o := &onCall{harness: h}
	left := func() {
		t.Helper()
		for name := range h.js.StreamNames(h.ctx).Name() {
			require.NotContains(t, name, "BENCH", "a stream is left")
		}
		names, err := h.mongo().ListDatabaseNames(h.ctx, bson.D{})
		require.NoError(t, err)
		require.NotContains(t, strings.Join(names, " "), "bench")
	}
	small := []string{"bench", "--users", "20", "--callers", "4", "--duration", "100ms", "--rounds", "2"}
	var figures []bench.Figure
	require.NoError(t, json.Unmarshal([]byte(o.ok(append(small, "-o", "json")...)), &figures))
	require.Len(t, figures, 3)
	for _, f := range figures {
		require.Positive(t, f.Ratio(), f.Name)
	}
	for _, f := range figures {
		require.Equal(t, 20, f.Users, f.Name)
		require.Len(t, f.Latchkey, 2, f.Name)
		require.Len(t, f.Ratios(), 2, f.Name)
	}
	require.Len(t, figures[2].BareP99, 2)
	left()
	o.with = []string{"LATCHKEY_NATS_PARTITIONS=3"}
	table := o.ok(small...)
	require.Regexp(t, `RATIO +SPREAD`, table)
	require.Regexp(t, ` \d+\.\d\d…\d+\.\d\d `, table)
	require.Contains(t, table, " ms")
	left()
	for _, wrong := range []string{"--users", "--callers", "--rounds", "--duration"} {
		code, _, _ := o.run("bench", wrong, "0")
		require.Equal(t, cli.ExitUsage, code)
	}

	// Ctrl-C in the middle.
	ctx, cancel := context.WithCancel(h.ctx)
	read, write := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- cli.Run(ctx, []string{"bench", "--users", "20", "--duration", "1h"}, append(h.stack.Environ(), h.settings()...), io.Discard, write)
		_ = write.Close()
	}()
	said := make([]byte, 4096)
	var all strings.Builder
	for !strings.Contains(all.String(), "again and again") {
		n, err := read.Read(said)
		require.NoError(t, err, all.String())
		all.Write(said[:n])
	}
	cancel()
	_, err := io.Copy(io.Discard, read)
	require.NoError(t, err)
	require.Equal(t, cli.ExitFailed, <-done)
	left()
	_, err = h.js.Stream(h.ctx, "nothing")
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound, "the broker answers")
}
