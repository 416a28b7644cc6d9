package worker_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/latchkey/doctor"
	"github.com/latchkey/latchkey/events"
)

// Whoever reads events finds those of all partitions: the command line, the operator's page,
// an export, an erasure, the doctor.
func TestEventsInPartitionsAreFound(t *testing.T) {
	t.Parallel()
	const partitions, users = 3, 9
	h := start(t, nil)
	setting := fmt.Sprint("LATCHKEY_NATS_PARTITIONS=", partitions)
	h.worker(setting, "LATCHKEY_ADMIN_LISTEN=127.0.0.1:0")
	page := h.reader()
	h.subjects.Partitions = partitions
	user := func(n int) string { return fmt.Sprint("user-", n) }
	in := map[int]string{}
	for n := range users {
		h.connectAged(user(n), fresh, spec("coinbase"), user(n))
		h.event(events.TokenStored, user(n))
		in[h.subjects.PartitionOf(user(n))] = user(n)
	}
	require.Len(t, in, partitions)

	run := func(settings []string, args ...string) (code int, out, errs string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		code = cli.Run(h.ctx, args, slices.Concat(h.stack.Environ(), h.settings(), settings), &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	ok := func(settings []string, args ...string) string {
		t.Helper()
		code, out, errs := run(settings, args...)
		require.Equal(t, cli.ExitOK, code, errs)
		return out
	}
	tail := func(settings []string, args ...string) (out []events.LifecycleEvent) {
		t.Helper()
		for line := range strings.Lines(ok(settings, append([]string{"events", "tail", "--follow=false", "-o", "json"}, args...)...)) {
			e, err := events.DecodeLifecycle([]byte(line))
			require.NoError(t, err)
			out = append(out, e)
		}
		return out
	}
	h.eventually(func() bool { return len(tail([]string{setting})) == users }, "an event is heard before it is stored")
	for _, settings := range [][]string{nil, {setting}} {
		all := tail(settings)
		require.Len(t, all, users, "also where the number is not configured")
		for n, e := range all {
			require.Equal(t, user(n), e.Data.UserID, "in the order of time")
		}
		for _, u := range in {
			require.Len(t, tail(settings, "--user", u), 1)
			require.Contains(t, ok(settings, "export", "--user", u), events.TokenStored)
		}
	}
	for _, u := range in { // a connect that changes nothing
		h.publish(h.subjects.Connected(), fmt.Sprintf(`{"userId":%q}`, u))
		h.eventually(func() bool { return strings.Contains(ok(nil, "export", "--user", u), events.IntegrationRejected) }, "it is not in the stream of the user's events")
	}
	for _, u := range in {
		var past struct{ Events []struct{ Kind string } }
		page.read("/api/grants/"+h.grants(u)[0].ID+"/history", &past)
		require.Len(t, past.Events, 1, u)
	}

	// One that runs full before its time is named, and so is one that is not there.
	h.examine(setting).Is(doctor.OK, "nats streams", "streams as configured")
	second := h.subjects.LifecyclePartitions()[1].Stream
	stream, err := h.js.Stream(h.ctx, second)
	require.NoError(t, err)
	c := stream.CachedInfo().Config
	before := c.MaxBytes
	c.MaxBytes = int64(stream.CachedInfo().State.Bytes) + 1
	_, err = h.js.UpdateStream(h.ctx, c)
	require.NoError(t, err)
	h.examine(setting).Is(doctor.Warning, "nats streams", "nats stream edit "+second+" --max-bytes")
	c.MaxBytes = before
	_, err = h.js.UpdateStream(h.ctx, c)
	require.NoError(t, err)

	for _, u := range in {
		ok([]string{setting}, "users", "erase", u, "--yes", "--events")
		left := tail([]string{setting}, "--user", u)
		require.Len(t, left, 1)
		require.Equal(t, events.TokenRevoked, left[0].Kind)
	}

	require.NoError(t, h.js.DeleteStream(h.ctx, second))
	code, _, stderr := run([]string{setting}, "events", "tail", "--follow=false")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stderr, second)
}
