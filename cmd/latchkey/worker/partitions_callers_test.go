package worker_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/latchkey/doctor"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/audit"
)

// partitioned returns a copy of deploy/nats whose roles know so many partitions,
// as an operator makes it.
func partitioned(t *testing.T, partitions int) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(deployNATS)))
	for _, file := range []string{"roles/worker.conf", "roles/operator.conf", "roles/observer.conf", "roles/observer-imported.conf", "accounts.conf"} {
		path := filepath.Join(dir, file)
		for _, n := range []int{2, partitions} { // a file that was written before may be given again
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			cmd := exec.CommandContext(t.Context(), "sh", filepath.Join(deployNATS, "partitions.sh"), fmt.Sprint(n))
			cmd.Stdin = bytes.NewReader(content)
			content, err = cmd.Output()
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, content, 0o600))
		}
	}
	return dir
}

// With the permissions that partitions.sh writes a worker does all that it does
// without partitions.
func TestPermissionsForPartitions(t *testing.T) {
	t.Parallel()
	t.Run("one account", func(t *testing.T) {
		t.Parallel()
		permissionsForPartitions(t, "nkeys.conf", "$JS.API")
	})
	t.Run("accounts", func(t *testing.T) {
		t.Parallel()
		permissionsForPartitions(t, "accounts.conf", "JS.LATCHKEY.API")
	})
}

func permissionsForPartitions(t *testing.T, file, observerAPI string) {
	t.Helper()
	const partitions, users = 3, 12
	setting := fmt.Sprint("LATCHKEY_NATS_PARTITIONS=", partitions)
	c := startCallers(t, filepath.Join(partitioned(t, partitions), file), nkeyProof(t))
	w := c.worker(append(c.settingsOf("worker"), setting)...)
	require.NoError(t, c.stack.Ready(c.ctx))
	publisher, observer := c.as("publisher"), c.as("observer")
	c.nc, c.js = publisher.Conn, publisher.js
	for _, kind := range events.LifecycleKinds {
		_, err := observer.Subscribe(c.subjects.LifecycleAll(kind), c.observe)
		require.NoError(t, err)
	}
	require.NoError(t, observer.Flush())

	user := func(n int) string { return fmt.Sprint("user-", n) }
	in := map[int]bool{}
	c.subjects.Partitions = partitions
	for n := range users {
		lost := []meshsim.Action(nil)
		if n%2 == 0 {
			lost = append(lost, meshsim.Drop()) // tried again in the urgent lane
		}
		c.connectAged(user(n), due, spec("graceful"), fmt.Sprint("case-", n), lost...)
	}
	for n := range users {
		c.event(events.TokenRefreshed, user(n))
		in[c.subjects.PartitionOf(c.grants(user(n))[0].ID)] = true
	}
	require.Len(t, in, partitions)
	for n := range users {
		c.disconnect(user(n), "", "")
		c.event(events.TokenRevoked, user(n))
	}
	c.examine(append(c.settingsOf("worker"), setting)...).AllBut()

	c.examine(append(c.settingsOf("worker"), setting)...).Is(doctor.OK, "nats permissions", "and lifecycle events")
	c.examine(append(c.settingsOf("operator"), setting)...).Is(doctor.Failed, "nats permissions", "publish latchkey.lifecycle.2.token.stored.")

	js, err := jetstream.NewWithAPIPrefix(observer.Conn, observerAPI)
	require.NoError(t, err)
	received := 0
	for _, p := range c.subjects.LifecyclePartitions() {
		consumer, err := js.CreateOrUpdateConsumer(c.ctx, p.Stream, jetstream.ConsumerConfig{
			Durable: "observer", AckPolicy: jetstream.AckExplicitPolicy, FilterSubjects: []string{"token.revoked.*"},
		})
		require.NoError(t, err)
		waiting := int(consumer.CachedInfo().NumPending)
		batch, err := consumer.Fetch(waiting, jetstream.FetchMaxWait(patience))
		require.NoError(t, err)
		for msg := range batch.Messages() {
			require.NoError(t, msg.DoubleAck(c.ctx))
			received++
		}
	}
	require.Equal(t, users, received)
	environ := slices.Concat(c.stack.Environ(), c.settings(c.settingsOf("operator")...), []string{setting})
	for _, args := range [][]string{{"events", "tail", "--follow=false", "--since", "1h"}, {"export", "--user", user(1)}, {"users", "erase", user(1), "--yes", "--events"}} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, cli.ExitOK, cli.Run(c.ctx, args, environ, &stdout, &stderr), stderr.String())
		require.Contains(t, stdout.String(), user(1))
	}
	w.stop()
	c.operatorReadsTheWholeLog(setting)
	require.NotContains(t, strings.ToLower(c.logs.String()), "permissions violation")
}

// operatorReadsTheWholeLog has commands write to each of the streams that share the audit
// log, and reads them all, also with fewer partitions.
func (c *callers) operatorReadsTheWholeLog(setting string) {
	c.t.Helper()
	run := func(args ...string) string {
		var stdout, stderr bytes.Buffer
		code := cli.Run(c.ctx, args, append(c.stack.Environ(), c.settings(append(c.settingsOf("operator"), setting)...)...), &stdout, &stderr)
		require.Equal(c.t, cli.ExitOK, code, stderr.String())
		return stdout.String()
	}
	c.eventually(func() bool {
		run("export", "--user", "nobody")
		in := map[string]bool{}
		lines := json.NewDecoder(strings.NewReader(run("audit", "list", "--action", "exported", "-o", "json")))
		for lines.More() {
			var e audit.Entry
			require.NoError(c.t, lines.Decode(&e))
			in[e.Stream] = true
		}
		return len(in) == len(c.subjects.AuditPartitions())
	}, "commands don't write to all streams")
	run("audit", "verify")
	require.Equal(c.t, run("audit", "list"), c.operator("audit", "list"), "with one partition")
	require.Contains(c.t, c.operator("audit", "verify"), " 0 faults")
}
