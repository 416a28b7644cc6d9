package cli

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/latchkey/latchkey/config"
)

// TestMemoryIsGuardedBeforeAnythingIsOpened, by whatever command.
func TestMemoryIsGuardedBeforeAnythingIsOpened(t *testing.T) {
	cfg, err := config.Load("", append(unreachable[:len(unreachable):len(unreachable)], "LATCHKEY_WORKER_LOCK_MEMORY=off"))
	require.NoError(t, err)
	require.NoError(t, unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := &session{ctx: ctx, cfg: cfg}
	defer s.close()
	require.Error(t, s.openEnvelope(), "there is no database")
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	require.NoError(t, err)
	require.Zero(t, dumpable)
}
