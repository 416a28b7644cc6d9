package engines

import (
	"net"
	"os/exec"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPortIsTakenWhileProcessesStart(t *testing.T) {
	stop := make(chan struct{})
	var starters sync.WaitGroup
	for range 4 {
		starters.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = exec.Command("true").Run()
				}
			}
		})
	}
	defer starters.Wait()
	defer close(stop)
	for range 500 {
		port, err := claimPort(0)
		require.NoError(t, err)
		// As an engine does that listens itself: at once, and once.
		ln, err := net.Listen("tcp", address(port))
		require.NoError(t, err)
		require.NoError(t, ln.Close())
		ln, err = listen(port)
		require.NoError(t, err)
		require.NoError(t, ln.Close())
	}
}

// Whoever claims several ports listens on none of them yet.
func TestPortsThatAreClaimedDiffer(t *testing.T) {
	claimed := map[int]bool{}
	for range 1000 {
		port, err := claimPort(0)
		require.NoError(t, err)
		require.False(t, claimed[port], port)
		claimed[port] = true
	}
}

func TestATakenPortIsReported(t *testing.T) {
	ln, err := listen(0)
	require.NoError(t, err)
	defer ln.Close()
	_, err = claimPort(ln.Addr().(*net.TCPAddr).Port)
	require.ErrorContains(t, err, "address already in use")
}
