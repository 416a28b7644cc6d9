package worker_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

// partitioned returns a copy of deploy/nats whose roles know so many partitions,
// as an operator makes it.
func partitioned(t *testing.T, partitions int) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(deployNATS)))
	for _, role := range []string{"worker", "operator"} {
		path := filepath.Join(dir, "roles", role+".conf")
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
	const partitions, users = 3, 12
	setting := fmt.Sprint("LATCHKEY_NATS_PARTITIONS=", partitions)
	c := startCallers(t, filepath.Join(partitioned(t, partitions), "nkeys.conf"), nkeyProof(t))
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
	w.stop()
	require.NotContains(t, strings.ToLower(c.logs.String()), "permissions violation")
}
