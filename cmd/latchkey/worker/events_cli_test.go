package worker_test

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/events"
)

func TestEventsOnTheCommandLine(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	o := &onCall{harness: h}
	require.Contains(t, o.fails("events", "tail", "--follow=false"), "has a worker run")
	h.worker()
	require.Empty(t, o.ok("events", "tail", "--follow=false"))
	for _, user := range []string{"u", "v"} {
		h.connectAged(user, fresh, spec("coinbase"), user)
		h.event(events.TokenStored, user)
	}
	h.disconnect("u", "", "")
	h.event(events.TokenRevoked, "u")

	lines := func(args ...string) (out []events.LifecycleEvent) {
		t.Helper()
		for line := range strings.Lines(o.ok(append([]string{"events", "tail", "--follow=false", "-o", "json"}, args...)...)) {
			e, err := events.DecodeLifecycle([]byte(line))
			require.NoError(t, err)
			out = append(out, e)
		}
		return out
	}
	h.eventually(func() bool { return len(lines()) == 3 }, "an event is heard before it is stored")
	require.Len(t, lines("--since", "1h"), 3)
	require.Len(t, lines("--user", "v"), 1)
	require.Empty(t, lines("--since", time.Now().Add(time.Hour).Format(time.RFC3339)))
	require.Equal(t, []events.LifecycleEvent{h.event(events.TokenRevoked, "u")}, lines("--kind", events.TokenRevoked), "as subscribers receive it")
	table := o.ok("events", "tail", "--follow=false", "--user", "v")
	require.Contains(t, table, events.TokenStored)
	require.Contains(t, table, "version 1")
	require.Contains(t, table, "until 2")
	for _, wrong := range [][]string{{"--kind", "token.got"}, {"--user", "\x00"}} {
		code, _, _ := o.run(append([]string{"events", "tail"}, wrong...)...)
		require.Equal(t, cli.ExitUsage, code)
	}
	// Followed, it shows what comes, until ctrl-C.
	ctx, cancel := context.WithCancel(h.ctx)
	read, write := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- cli.Run(ctx, []string{"events", "tail", "--since", "1h", "--user", "w"}, append(h.stack.Environ(), h.settings()...), write, io.Discard)
		_ = write.Close()
	}()
	h.connectAged("w", fresh, spec("coinbase"), "w")
	shown, err := bufio.NewReader(read).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, shown, events.TokenStored)
	cancel()
	require.Equal(t, cli.ExitOK, <-done)
}
