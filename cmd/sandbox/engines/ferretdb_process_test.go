package engines_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

// The tests of the engines look at the server's log, and at its memory.
func TestMain(m *testing.M) {
	_ = os.Unsetenv(engines.ProgramVariable)
	os.Exit(m.Run())
}

func TestFerretDBRunsInAProcessOfItsOwn(t *testing.T) {
	program := filepath.Join(t.TempDir(), "ferretdb")
	out, err := exec.Command("go", "build", "-o", program, "./ferretdb").CombinedOutput()
	require.NoError(t, err, string(out))
	t.Setenv(engines.ProgramVariable, program)
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{})
	c := grants(t, db)
	insertGrant(t, c, "g")
	db.Stop()
	require.Error(t, c.FindOne(t.Context(), object{}).Err())
	db.Restart()
	require.Equal(t, 0, version(t, c, "g"))
}

func TestAProgramThatIsNoFerretDBIsReported(t *testing.T) {
	t.Setenv(engines.ProgramVariable, "/nowhere/ferretdb")
	_, err := engines.StartFerretDB(engines.FerretDBOptions{Dir: t.TempDir()})
	require.ErrorContains(t, err, "/nowhere/ferretdb")
	ends := filepath.Join(t.TempDir(), "ends")
	require.NoError(t, os.WriteFile(ends, []byte("#!/bin/sh\nexec 1>&-\nsleep 0.2\necho what is wrong >&2\nexit 3\n"), 0o700))
	t.Setenv(engines.ProgramVariable, ends)
	_, err = engines.StartFerretDB(engines.FerretDBOptions{Dir: t.TempDir()})
	require.ErrorContains(t, err, "starting FerretDB: "+ends+" ended: what is wrong")
	require.ErrorContains(t, err, "exit status 3")
}
