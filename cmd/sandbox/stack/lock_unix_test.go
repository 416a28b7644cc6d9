//go:build unix

package stack

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const lockVariable = "LATCHKEY_TEST_LOCK"

// TestMain is also the process that holds a lock until it is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv(lockVariable); path != "" {
		if _, err := lock(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		select {}
	}
	os.Exit(m.Run())
}

func TestAFolderIsForOneStack(t *testing.T) {
	dir := t.TempDir()
	first, err := Start(Options{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(first.Stop)
	_, err = Start(Options{Dir: dir})
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, fmt.Sprint("process ", os.Getpid()))
	require.NotNil(t, first.NATS.Server(), "the first goes on")
	first.Stop()
	again, err := Start(Options{Dir: dir})
	require.NoError(t, err)
	again.Stop()
}

func TestALockEndsWithItsProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	holder := exec.Command(os.Args[0])
	holder.Env = append(os.Environ(), lockVariable+"="+path)
	out, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	line := make([]byte, len("locked"))
	_, err = out.Read(line)
	require.NoError(t, err)
	require.Equal(t, "locked", string(line))

	_, err = lock(path)
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, fmt.Sprint("process ", holder.Process.Pid))
	require.NoError(t, holder.Process.Kill())
	_ = holder.Wait() // it was killed
	file, err := lock(path)
	require.NoError(t, err)
	require.NoError(t, file.Close())
}
