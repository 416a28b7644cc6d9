// Package node_test runs the tests of the client for Node.js.
package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/npmtest"
)

// users are one who may do all, an observer with the shipped role, and one with its
// permissions on the first stream of events.
func users(t *testing.T) []*server.User {
	t.Helper()
	dir := t.TempDir()
	role, err := os.ReadFile("../../deploy/nats/roles/observer.conf")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "observer.conf"), role, 0o600))
	conf := filepath.Join(dir, "nats.conf")
	require.NoError(t, os.WriteFile(conf, []byte(`authorization { users: [
		{ user: all, password: x }
		{ user: observer, password: x, permissions: { include "observer.conf" } }
		{ user: first, password: x, permissions: {
			publish: ["$JS.API.STREAM.INFO.LATCHKEY_LIFECYCLE", "$JS.API.CONSUMER.CREATE.LATCHKEY_LIFECYCLE.observer", "$JS.API.CONSUMER.INFO.LATCHKEY_LIFECYCLE.observer",
				"$JS.API.CONSUMER.MSG.NEXT.LATCHKEY_LIFECYCLE.observer", "$JS.ACK.LATCHKEY_LIFECYCLE.observer.>"]
			subscribe: ["_INBOX_observer.>"]
		} }
	] }`), 0o600))
	options, err := server.ProcessConfigFile(conf)
	require.NoError(t, err)
	return options.Users
}

// TestNodeClient: its types are those of the schemas and of its code, and it does what it
// says at a NATS server. cmd/latchkey/worker tests it against a worker.
func TestNodeClient(t *testing.T) {
	npm := npmtest.New(t)
	t.Parallel()
	dir := t.TempDir()
	users := users(t)
	url := enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) { o.Users, o.NoAuthUser = users, "all" }}).URL()
	for _, part := range []string{"schemas", "node/lib", "node/types", "node/test"} {
		require.NoError(t, os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join("..", part))))
	}
	for _, file := range []string{".npmrc", "package.json", "package-lock.json", "tsconfig.json", "generate.js"} {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "node", file), data, 0o600))
	}
	run := func(args ...string) string {
		return npm(filepath.Join(dir, "node"), []string{"NATS_URL=" + url}, args...)
	}
	run("ci", "--prefer-offline")
	run("run", "check")
	require.Contains(t, run("test"), "fail 0")
}
