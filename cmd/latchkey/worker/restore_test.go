package worker_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

// A database that was put back to an older copy holds refresh tokens that have
// been replaced since. That is said loudly, and no older token set is taken for
// the newer one.
func TestADatabaseRestoredFromAnOlderCopyIsSaidLoudly(t *testing.T) {
	h := start(t, map[string]meshsim.Institution{
		"coinbase": {AccessLifetime: 4 * time.Second, RefreshLifetime: time.Hour},
	})
	if h.stack.MongoDB == nil {
		t.Skip("needs an embedded database to put back")
	}
	w := h.worker()
	h.connect("alice", meshsim.ConnectSpec{BrokerType: "coinbase"})
	h.event(events.TokenStored, "alice")
	w.stop()

	database, backup := filepath.Join(h.dir, "mongodb"), filepath.Join(h.dir, "backup")
	h.stack.MongoDB.Stop()
	require.NoError(t, os.CopyFS(backup, os.DirFS(database)))
	require.NoError(t, h.stack.MongoDB.Restart())

	w = h.worker()
	h.nth(events.TokenRefreshed, "alice", 2)
	w.stop()

	h.stack.MongoDB.Stop()
	require.NoError(t, os.RemoveAll(database))
	require.NoError(t, os.CopyFS(database, os.DirFS(backup)))
	require.NoError(t, h.stack.MongoDB.Restart())

	w = h.worker()
	h.eventually(func() bool { return w.metric("latchkey_grants_outdated_total") > 0 }, "the older database is noticed")
	require.Contains(t, h.logs.String(), "the database was restored from an older copy")
	// The institution has replaced the refresh token that came back with the
	// copy: the grant ends, and says so.
	require.NotEmpty(t, h.event(events.TokenExpired, "alice").Data.Reason)
	w.stop()
}
