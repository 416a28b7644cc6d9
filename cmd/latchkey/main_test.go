package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"latchkey": main})
}

// TestCommands runs the transcripts in testdata.
func TestCommands(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

// TestTheWorkerLinksNoEngine: what only the sandbox and the tests need must
// not be part of the program that runs in production.
func TestTheWorkerLinksNoEngine(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	require.NoError(t, err, string(out))
	for _, dep := range strings.Fields(string(out)) {
		for _, engine := range []string{"latchkey/cmd/sandbox", "nats-server", "FerretDB", "sqlite", "stretchr/testify", "pgregory.net"} {
			require.NotContains(t, dep, engine)
		}
	}
}
