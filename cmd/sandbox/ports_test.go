package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/stack"
)

// taken is a port on which the test listens.
func taken(t *testing.T) (port string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	_, port, err = net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	return port
}

// sandboxWith runs the sandbox with a flag for each port, and returns what it says when it
// does not start.
func sandboxWith(t *testing.T, dir string, ports map[string]string) string {
	t.Helper()
	args := []string{"--dir", dir}
	for name, port := range ports {
		args = append(args, "--"+name, port)
	}
	var said bytes.Buffer
	require.Equal(t, 1, run(t.Context(), args, io.Discard, &said), said.String())
	return said.String()
}

// Whichever port is in use, the sandbox says whose it is and which flag sets another, for all
// of them at once and before it starts anything.
func TestAPortInUseNamesItsFlag(t *testing.T) {
	t.Setenv("LATCHKEY_ADMIN_LISTEN", "127.0.0.1:9464") // the flag is more than the variable
	dir := filepath.Join(t.TempDir(), "none")
	flags, all := map[string]string{}, map[string]string{}
	var p ports
	for _, l := range p.listeners() {
		flags[l.flag] = "0"
		all[l.flag] = taken(t)
	}
	root := newRoot(io.Discard)
	require.Len(t, flags, 8)
	for name := range flags {
		t.Run(name, func(t *testing.T) {
			require.NotNil(t, root.Flags().Lookup(name))
			port := taken(t)
			flags := maps.Clone(flags)
			flags[name] = port
			said := sandboxWith(t, dir, flags)
			require.Contains(t, said, "port "+port+" of ")
			require.Contains(t, said, "address already in use")
			require.Contains(t, said, "--"+name+" sets another")
			require.Equal(t, 1, strings.Count(said, "\n"), said)
			require.NoDirExists(t, dir)
		})
	}
	said := sandboxWith(t, dir, all)
	for name, port := range all {
		require.Contains(t, said, "port "+port+" of ")
		require.Contains(t, said, "--"+name+" sets another")
	}
	same := maps.Clone(flags)
	same["nats-port"], same["link-port"] = "29321", "29321"
	require.Contains(t, sandboxWith(t, dir, same), "is that of --nats-port too: --link-port sets another")
}

// A second sandbox on a folder finds its ports in use. That the first runs is the better reason.
func TestASecondSandboxIsToldOfTheFirst(t *testing.T) {
	dir := t.TempDir()
	first, err := stack.Hold(dir)
	require.NoError(t, err)
	if first == nil {
		t.Skip("folders are not locked here")
	}
	defer func() { _ = first.Close() }()
	said := sandboxWith(t, dir, map[string]string{"nats-port": taken(t)})
	require.Contains(t, said, stack.ErrInUse.Error())
	require.NotContains(t, said, "--nats-port")
}

func TestEveryPortIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/sandbox.md")
	require.NoError(t, err)
	var p ports
	for _, l := range p.listeners() {
		require.Contains(t, string(page), fmt.Sprintf("`--%s` | %d |", l.flag, l.usual))
	}
}
